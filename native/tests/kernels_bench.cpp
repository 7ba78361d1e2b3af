// Speed of the CPU engine at sizes of a small fine-tuning job: kernels_bench [threads]
#include "trainer_native.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

namespace {

void must(tn_status status) {
    if (status == TN_OK) return;
    std::fprintf(stderr, "%s\n", tn_last_error());
    std::exit(1);
}

std::vector<float> normal(int64_t count) {
    std::mt19937 random(1);
    std::normal_distribution<float> distribution;
    std::vector<float> v(static_cast<size_t>(count));
    for (float& x : v) x = distribution(random);
    return v;
}

// Best of five, in seconds.
template <class Body>
double seconds(Body body) {
    double best = 1e9;
    for (int i = 0; i < 5; ++i) {
        const auto start = std::chrono::steady_clock::now();
        body();
        best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    return best;
}

void attention(int32_t length, int32_t n, int32_t m, int32_t dim) {
    const int32_t cu[2] = {0, length};
    tn_attention_shape shape{TN_DEVICE_CPU, TN_FLOAT32, length, length, n, m, dim, 1, cu, cu, 0.125f, 1, -1, 0};
    std::vector<float> q = normal(int64_t{length} * n * dim), k = normal(int64_t{length} * m * dim), v = k, out = q, dout = q, dq = q, dk = k, dv = k;
    std::vector<float> lse(static_cast<size_t>(n) * static_cast<size_t>(length));
    const int64_t qs = int64_t{n} * dim, ks = int64_t{m} * dim;
    int64_t bytes;
    must(tn_attention_backward_scratch_bytes(&shape, 1, &bytes));
    std::vector<float> scratch(static_cast<size_t>(bytes) / 4);
    tn_attention_forward_args f{sizeof f, shape, {q.data(), qs, dim}, {k.data(), ks, dim}, {v.data(), ks, dim}, {out.data(), qs, dim}, lse.data()};
    tn_attention_backward_args b{sizeof b, 1, shape, f.q_TNH, f.k_TMH, f.v_TMH, f.out_TNH, lse.data(), {dout.data(), qs, dim},
                                 {dq.data(), qs, dim}, {dk.data(), ks, dim}, {dv.data(), ks, dim}, scratch.data(), bytes};
    const double forward = seconds([&] { must(tn_attention_forward(&f, nullptr)); });
    const double backward = seconds([&] { must(tn_attention_backward(&b, nullptr)); });
    const double flops = 4.0 * n * length * length * dim / 2;
    std::printf("attention causal T=%d heads=%d/%d d=%d: forward %.1f ms %.1f GFLOP/s, backward %.1f ms %.1f GFLOP/s\n", length, n, m, dim,
                1e3 * forward, flops / forward * 1e-9, 1e3 * backward, 2.5 * flops / backward * 1e-9);
}

void cross_entropy(int64_t rows, int64_t vocabulary) {
    std::vector<float> logits = normal(rows * vocabulary), loss(static_cast<size_t>(rows));
    const std::vector<int64_t> labels(static_cast<size_t>(rows), 5);
    tn_cross_entropy_args a{sizeof a, TN_DEVICE_CPU, TN_FLOAT32, 1, rows, vocabulary, logits.data(), vocabulary, labels.data(), loss.data(), 1, 0};
    const double time = seconds([&] { must(tn_cross_entropy(&a, nullptr)); });
    std::printf("cross-entropy with gradient %lld x %lld float32: %.1f ms, %.2f GB/s of logits\n", static_cast<long long>(rows),
                static_cast<long long>(vocabulary), 1e3 * time, static_cast<double>(rows * vocabulary) * 4 / time * 1e-9);
}

// y[M, N] = x[M, K] * weight[N, K]^T and the gradients of x and weight.
void linear(int64_t m, int64_t n, int64_t k) {
    std::vector<float> x = normal(m * k), weight = normal(n * k), y(static_cast<size_t>(m * n)), dx = x, dweight = weight;
    const tn_matmul_args forward{sizeof forward, TN_DEVICE_CPU, TN_FLOAT32, TN_FLOAT32, 0, 1, 0, 0, m, n, k, x.data(), k, weight.data(), k, y.data(), n};
    const tn_matmul_args back_x{sizeof back_x, TN_DEVICE_CPU, TN_FLOAT32, TN_FLOAT32, 0, 0, 0, 0, m, k, n, y.data(), n, weight.data(), k, dx.data(), k};
    const tn_matmul_args back_w{sizeof back_w, TN_DEVICE_CPU, TN_FLOAT32, TN_FLOAT32, 1, 0, 0, 0, n, k, m, y.data(), n, x.data(), k, dweight.data(), k};
    std::printf("linear M=%lld N=%lld K=%lld GFLOP/s:", static_cast<long long>(m), static_cast<long long>(n), static_cast<long long>(k));
    for (const auto& [name, args] : {std::pair{"forward", &forward}, std::pair{"dx", &back_x}, std::pair{"dweight", &back_w}})
        std::printf(" %s %.1f", name, 2e-9 * static_cast<double>(m * n * k) / seconds([&] { must(tn_matmul(args, nullptr)); }));
    std::printf("\n");
}

}  // namespace

int main(int argc, char** argv) {
    if (argc > 1) must(tn_set_threads(std::atoi(argv[1])));
    attention(2048, 8, 4, 64);
    attention(2048, 8, 4, 128);
    attention(8192, 2, 1, 64);
    cross_entropy(110, 151936);
    for (int64_t k : {64, 256, 1024}) linear(512, 256, k);
    linear(110, 151936, 64);
}
