// delta = rowsum(out * dout): what the softmax's gradient subtracts in every row.
#include "attention.h"
#include "launch.h"
#include "ptx.cuh"

namespace trainer::cuda {

namespace {

struct Parameters {
    Matrix out, dout;
    int64_t tokens;
    int32_t heads, head_dim;
    float* delta;
};

constexpr int threads = 256, row_threads = 16;

// Sixteen threads a row, 16 bytes a thread and step. delta is [heads, tokens].
template <class T>
__global__ void __launch_bounds__(threads) delta(const __grid_constant__ Parameters p) {
    const int64_t row = int64_t{blockIdx.x} * (threads / row_threads) + threadIdx.x / row_threads;
    const bool valid = row < p.tokens * p.heads;
    const int64_t token = row / p.heads, head = row % p.heads;
    float sum = 0;
    for (int column = threadIdx.x % row_threads * 8; valid && column < p.head_dim; column += row_threads * 8) {
        const uint4 x = *reinterpret_cast<const uint4*>(p.out.at(token, head) + column);
        const uint4 y = *reinterpret_cast<const uint4*>(p.dout.at(token, head) + column);
        const uint32_t xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float2 a = unpack<T>(xs[i]), b = unpack<T>(ys[i]);
            sum = fmaf(a.x, b.x, fmaf(a.y, b.y, sum));
        }
    }
#pragma unroll
    for (int lanes = row_threads / 2; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
    if (valid && threadIdx.x % row_threads == 0) p.delta[head * p.tokens + token] = sum;
}

}  // namespace

void attention_delta(const tn_attention_backward_args& args, float* result, cudaStream_t stream) {
    const tn_attention_shape& s = args.shape;
    if (s.q_tokens == 0) return;
    const Parameters p{matrix(args.out_TNH), matrix(args.dout_TNH), s.q_tokens, s.q_heads, s.head_dim, result};
    const int64_t blocks = (s.q_tokens * s.q_heads * row_threads + threads - 1) / threads;
    launch(s.dtype == TN_BFLOAT16 ? delta<Bf16> : delta<Fp16>, "attention delta", blocks, threads, 0, stream, p);
}

}  // namespace trainer::cuda
