#include "harness.h"

#include <algorithm>
#include <limits>

namespace {

struct Case {
    tn_dtype dtype;
    int32_t q_heads, kv_heads, head_dim;
    std::vector<int32_t> q_lengths, k_lengths;
    bool causal;
    int32_t window = -1;
    // Elements between tokens beyond the heads themselves, as in a slice of a fused projection.
    int64_t token_gap = 0;
    double deviation = 1;
};

std::vector<int32_t> boundaries(const std::vector<int32_t>& lengths) {
    std::vector<int32_t> cu{0};
    for (int32_t length : lengths) cu.push_back(cu.back() + length);
    return cu;
}

// All tensors of one case, with the reference computed in float64 from the definition in the header.
class Attention {
public:
    explicit Attention(const Case& c, uint64_t seed = 1)
        : c_(c), random_(seed), cu_q_(boundaries(c.q_lengths)), cu_k_(boundaries(c.k_lengths)), tq_(cu_q_.back()), tk_(cu_k_.back()),
          q_stride_(c.q_heads * c.head_dim + c.token_gap), k_stride_(c.kv_heads * c.head_dim + c.token_gap),
          q(make(tq_ * q_stride_)), k(make(tk_ * k_stride_)), v(make(tk_ * k_stride_)), dout(make(tq_ * q_stride_)),
          out(c.dtype, static_cast<size_t>(tq_ * q_stride_)), dq(out), dk(c.dtype, static_cast<size_t>(tk_ * k_stride_)), dv(dk),
          lse(TN_FLOAT32, static_cast<size_t>(c.q_heads * tq_)) {
        shape.device = TN_DEVICE_CPU;
        shape.dtype = c.dtype;
        shape.q_tokens = tq_;
        shape.k_tokens = tk_;
        shape.q_heads = c.q_heads;
        shape.kv_heads = c.kv_heads;
        shape.head_dim = c.head_dim;
        shape.sequences = static_cast<int32_t>(c.q_lengths.size());
        shape.cu_seqlens_q = cu_q_.data();
        shape.cu_seqlens_k = cu_k_.data();
        shape.scale = 1 / std::sqrt(static_cast<float>(c.head_dim));
        shape.causal = c.causal;
        shape.window = c.window;
    }

    tn_attention_shape shape{};

    void run() {
        tn_attention_forward_args forward{};
        forward.struct_size = sizeof forward;
        forward.shape = shape;
        forward.q_TNH = queries(q);
        forward.k_TMH = keys(k);
        forward.v_TMH = keys(v);
        forward.out_TNH = queries(out);
        forward.lse_NT = static_cast<float*>(lse.data());
        ok(tn_attention_forward(&forward, nullptr));

        int64_t bytes = -1;
        ok(tn_attention_backward_scratch_bytes(&shape, 1, &bytes));
        std::vector<uint8_t> scratch(static_cast<size_t>(bytes), 0xff);
        tn_attention_backward_args backward{};
        backward.struct_size = sizeof backward;
        backward.shape = shape;
        backward.q_TNH = queries(q);
        backward.k_TMH = keys(k);
        backward.v_TMH = keys(v);
        backward.out_TNH = queries(out);
        backward.lse_NT = static_cast<const float*>(lse.data());
        backward.dout_TNH = queries(dout);
        backward.dq_TNH = queries(dq);
        backward.dk_TMH = keys(dk);
        backward.dv_TMH = keys(dv);
        backward.scratch = scratch.data();
        backward.scratch_bytes = bytes;
        ok(tn_attention_backward(&backward, nullptr));
    }

    void check() {
        run();
        std::vector<double> r_out = zeros(out), r_dq = zeros(dq), r_dk = zeros(dk), r_dv = zeros(dv);
        std::vector<double> r_lse(lse.size());
        const int64_t group = c_.q_heads / c_.kv_heads, dim = c_.head_dim;
        const double scale = shape.scale;
        for (size_t s = 0; s + 1 < cu_q_.size(); ++s) {
            const int64_t lq = c_.q_lengths[s], lk = c_.k_lengths[s];
            for (int64_t n = 0; n < c_.q_heads; ++n)
                for (int64_t i = 0; i < lq; ++i) {
                    const size_t qi = at_q(cu_q_[s] + i, n);
                    const auto ki = [&](int64_t j) { return at_k(cu_k_[s] + j, n / group); };
                    std::vector<double> p(static_cast<size_t>(lk), 0), dp(p);
                    double largest = -std::numeric_limits<double>::infinity(), sum = 0;
                    std::vector<bool> seen(static_cast<size_t>(lk));
                    for (int64_t j = 0; j < lk; ++j) {
                        const int64_t position = i + lk - lq;
                        seen[j] = (!c_.causal || j <= position) && (c_.window < 0 || j >= position - c_.window);
                        if (!seen[j]) continue;
                        for (int64_t h = 0; h < dim; ++h) p[j] += scale * q[qi + h] * k[ki(j) + h];
                        largest = std::max(largest, p[j]);
                    }
                    for (int64_t j = 0; j < lk; ++j) sum += p[j] = seen[j] ? std::exp(p[j] - largest) : 0;
                    r_lse[static_cast<size_t>(n * tq_ + cu_q_[s] + i)] = sum > 0 ? largest + std::log(sum) : largest;
                    for (int64_t h = 0; h < dim; ++h) r_out[qi + h] = r_dq[qi + h] = 0;
                    double delta = 0;
                    for (int64_t j = 0; j < lk; ++j) {
                        if (!seen[j]) continue;
                        p[j] /= sum;
                        for (int64_t h = 0; h < dim; ++h) {
                            r_out[qi + h] += p[j] * v[ki(j) + h];
                            dp[j] += dout[qi + h] * v[ki(j) + h];
                            r_dv[ki(j) + h] += p[j] * dout[qi + h];
                        }
                    }
                    // The mean of dp where the keys that its 64 queries see are at most 64. Else, by the algorithm, from out as
                    // stored, which out's own check holds close.
                    const int64_t first = i / 64 * 64 + lk - lq, last = std::min(i / 64 * 64 + 63, lq - 1) + lk - lq;
                    const int64_t end = c_.causal ? std::clamp<int64_t>(last + 1, 0, lk) : lk;
                    const int64_t begin = c_.window < 0 ? 0 : std::clamp<int64_t>(first - c_.window, 0, end);
                    if (end - begin <= 64)
                        for (int64_t j = 0; j < lk; ++j) delta += p[j] * dp[j];
                    else
                        for (int64_t h = 0; h < dim; ++h) delta += dout[qi + h] * out[qi + h];
                    for (int64_t j = 0; j < lk; ++j)
                        for (int64_t h = 0; seen[j] && h < dim; ++h) {
                            const double ds = scale * p[j] * (dp[j] - delta);
                            r_dq[qi + h] += ds * k[ki(j) + h];
                            r_dk[ki(j) + h] += ds * q[qi + h];
                        }
                }
        }
        // Float32 sums: a score has an absolute error of about |score| 2^-24, and scores grow with the square of the deviation.
        const double epsilons = 64 * c_.deviation * c_.deviation;
        close(lse, r_lse, "lse", epsilons);
        compare(out, r_out, "out", epsilons);
        compare(dq, r_dq, "dq", 2 * epsilons);
        compare(dk, r_dk, "dk", 2 * epsilons);
        compare(dv, r_dv, "dv", epsilons);
    }

    std::vector<uint8_t> all_bits() {
        run();
        std::vector<uint8_t> bits;
        for (const Values* t : {&out, &lse, &dq, &dk, &dv}) bits.insert(bits.end(), t->bytes().begin(), t->bytes().end());
        return bits;
    }

private:
    Case c_;
    std::mt19937_64 random_;
    std::vector<int32_t> cu_q_, cu_k_;
    int64_t tq_, tk_, q_stride_, k_stride_;

public:
    Values q, k, v, dout, out, dq, dk, dv, lse;

private:
    Values make(int64_t count) { return Values::normal(c_.dtype, static_cast<size_t>(count), random_, c_.deviation); }
    tn_tensor queries(Values& t) { return {t.data(), q_stride_, c_.head_dim}; }
    tn_tensor keys(Values& t) { return {t.data(), k_stride_, c_.head_dim}; }
    size_t at_q(int64_t token, int64_t head) const { return static_cast<size_t>(token * q_stride_ + head * c_.head_dim); }
    size_t at_k(int64_t token, int64_t head) const { return static_cast<size_t>(token * k_stride_ + head * c_.head_dim); }

    static std::vector<double> zeros(const Values& t) { return std::vector<double>(t.size(), 0.0); }

    // Elements of the tensor as in close(); bytes of the gaps must be as they were.
    void compare(const Values& actual, const std::vector<double>& reference, const std::string& name, double epsilons) {
        const bool query = name == "out" || name == "dq";
        const int64_t stride = query ? q_stride_ : k_stride_, used = stride - c_.token_gap;
        std::vector<double> wanted;
        Values got(c_.dtype, static_cast<size_t>((query ? tq_ : tk_) * used));
        for (int64_t t = 0; t < (query ? tq_ : tk_); ++t)
            for (int64_t i = 0; i < stride; ++i) {
                const size_t at = static_cast<size_t>(t * stride + i);
                if (i < used) {
                    got.set(wanted.size(), actual[at]);
                    wanted.push_back(reference[at]);
                } else {
                    expect(std::isnan(actual[at]), name + ": wrote between the tokens");
                }
            }
        close(got, wanted, name, epsilons);
    }
};

void check_both_types(Case c) {
    for (tn_dtype dtype : {TN_FLOAT32, TN_BFLOAT16}) {
        c.dtype = dtype;
        Attention(c).check();
    }
}

}  // namespace

TEST("attention agrees with float64 for every head dimension") {
    for (int32_t dim : {1, 3, 8, 16, 24, 32, 40, 64, 80, 96, 111, 128, 192, 256})
        for (bool causal : {false, true}) check_both_types({0, 2, 1, dim, {70}, {70}, causal});
}

TEST("attention agrees with float64 for every GQA ratio") {
    for (auto [n, m] : {std::pair{1, 1}, {2, 2}, {4, 2}, {6, 2}, {7, 1}, {14, 2}, {8, 4}}) check_both_types({0, n, m, 16, {65, 30}, {65, 30}, true});
}

TEST("attention agrees with float64 for lengths around the tiles") {
    for (int32_t length : {1, 2, 5, 15, 16, 17, 63, 64, 65, 127, 128, 129, 200})
        for (bool causal : {false, true}) check_both_types({0, 2, 1, 24, {length}, {length}, causal});
}

TEST("packed sequences of ragged lengths, empty ones among them, do not see each other") {
    check_both_types({0, 4, 2, 32, {0, 1, 70, 0, 64, 3, 129, 0}, {0, 1, 70, 0, 64, 3, 129, 0}, true});
    check_both_types({0, 4, 2, 32, {5, 0, 80}, {9, 4, 70}, false});
}

TEST("fewer or more queries than keys are aligned at the end; a query that sees nothing gets zero") {
    for (auto [q, k] : {std::pair{1, 130}, {3, 99}, {130, 3}, {64, 128}, {128, 64}, {70, 0}, {0, 70}, {113, 203}})
        for (bool causal : {false, true}) check_both_types({0, 2, 1, 16, {q, 8}, {k, 8}, causal});
}

TEST("a sliding window hides what is further left") {
    for (int32_t window : {0, 1, 5, 63, 64, 100, 1000})
        for (bool causal : {false, true}) check_both_types({0, 2, 1, 16, {150, 20}, {150, 20}, causal, window});
    check_both_types({0, 2, 1, 16, {30}, {150}, true, 40});
}

TEST("strides of a fused projection are followed and the gaps left alone") {
    check_both_types({0, 4, 2, 24, {70, 9}, {70, 9}, true, -1, 37});
}

TEST("large scores neither overflow nor lose their maximum") {
    for (int32_t length : {1, 2, 17, 128}) check_both_types({0, 2, 1, 64, {length}, {length}, true, -1, 0, 5});
}

TEST("a NaN in a key reaches exactly the queries that see it") {
    Attention a({TN_FLOAT32, 1, 1, 8, {100}, {100}, true});
    a.k.set(40 * 8, std::nan(""));
    a.run();
    for (size_t t = 0; t < 100; ++t) expect(std::isnan(a.out[t * 8]) == (t >= 40), "query " + std::to_string(t));
}

TEST("attention of packed sequences has the same bits as attention of each alone") {
    Attention packed({TN_FLOAT32, 2, 1, 32, {70, 33}, {70, 33}, true}), first({TN_FLOAT32, 2, 1, 32, {70}, {70}, true}),
        second({TN_FLOAT32, 2, 1, 32, {33}, {33}, true});
    const auto slice = [](const Values& from, size_t begin, Values& to) {
        std::memcpy(to.data(), from.bytes().data() + 4 * begin, to.bytes().size());
    };
    for (auto* part : {&first, &second}) {
        const size_t token = part == &first ? 0 : 70;
        slice(packed.q, token * 64, part->q);
        slice(packed.k, token * 32, part->k);
        slice(packed.v, token * 32, part->v);
        slice(packed.dout, token * 64, part->dout);
    }
    packed.run();
    first.run();
    second.run();
    const auto same = [](const Values& whole, const Values& a, const Values& b, const char* name) {
        std::vector<uint8_t> joined = a.bytes();
        joined.insert(joined.end(), b.bytes().begin(), b.bytes().end());
        expect(joined == whole.bytes(), name);
    };
    same(packed.out, first.out, second.out, "out");
    same(packed.dq, first.dq, second.dq, "dq");
    same(packed.dk, first.dk, second.dk, "dk");
    same(packed.dv, first.dv, second.dv, "dv");
}

TEST("attention has the same bits for any number of threads") {
    for (tn_dtype dtype : {TN_FLOAT32, TN_BFLOAT16}) {
        Attention a({dtype, 6, 2, 40, {300, 0, 65, 17}, {300, 0, 65, 17}, true});
        same_bits_for_any_thread_count([&] { return a.all_bits(); });
    }
}

TEST("scratch of attention grows with the tokens, not with their square") {
    const auto bytes = [](int32_t length) {
        Attention a({TN_FLOAT32, 2, 1, 16, {length}, {length}, true});
        int64_t answer = 0;
        ok(tn_attention_backward_scratch_bytes(&a.shape, 1, &answer));
        return answer;
    };
    expect(bytes(4096) == 2 * bytes(2048) && bytes(2048) > 0, "scratch is not linear");
}
