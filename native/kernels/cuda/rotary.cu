// Rotary position embedding: a thread turns up to eight pairs.
#include "device.h"
#include "elements.cuh"
#include "engine.h"

namespace trainer::cuda {

namespace {

constexpr int threads = 256;

struct Parameters {
    tn_tensor x, out;
    const float *cos, *sin;
    int64_t pieces;  // of all rows
    int64_t heads, half;
    float sign;
};

template <class T, int Count>
__global__ void __launch_bounds__(threads) rotate(const __grid_constant__ Parameters p) {
    const int64_t piece = int64_t{blockIdx.x} * threads + threadIdx.x, row_pieces = p.half / Count;
    if (piece >= p.pieces) return;
    const int64_t row = piece / row_pieces, column = piece % row_pieces * Count, token = row / p.heads, head = row % p.heads;
    const int64_t from = token * p.x.token_stride + head * p.x.head_stride + column;
    const int64_t to = token * p.out.token_stride + head * p.out.head_stride + column;
    float low[Count], high[Count], cos[Count], sin[Count], turned_low[Count], turned_high[Count];
    load(T{}, p.x.data, from, low);
    load(T{}, p.x.data, from + p.half, high);
    load(Fp32{}, p.cos, token * p.half + column, cos);
    load(Fp32{}, p.sin, token * p.half + column, sin);
#pragma unroll
    for (int i = 0; i < Count; ++i) {
        const float s = p.sign * sin[i];
        turned_low[i] = low[i] * cos[i] - high[i] * s;
        turned_high[i] = high[i] * cos[i] + low[i] * s;
    }
    store(T{}, p.out.data, to, turned_low);
    store(T{}, p.out.data, to + p.half, turned_high);
}

}  // namespace

void rotary(const tn_rotary_args& args, void* stream) {
    if (args.tokens == 0) return;
    const Device device = current_device();
    require_on_device(args.x_TNH.data, device, "x_TNH");
    require_on_device(args.out_TNH.data, device, "out_TNH");
    require_on_device(args.cos_TH2, device, "cos_TH2");
    require_on_device(args.sin_TH2, device, "sin_TH2");
    const int64_t half = args.head_dim / 2;
    const auto tensor_takes_eight = [](const tn_tensor& t) {
        return takes_eight(t.data) && takes_eight(t.token_stride) && takes_eight(t.head_stride);
    };
    const bool eight = takes_eight(half) && tensor_takes_eight(args.x_TNH) && tensor_takes_eight(args.out_TNH) &&
                       takes_eight(args.cos_TH2) && takes_eight(args.sin_TH2);
    const int64_t pieces = args.tokens * args.heads * (half / (eight ? 8 : 1));
    const Parameters p{args.x_TNH, args.out_TNH, args.cos_TH2, args.sin_TH2, pieces, args.heads, half, args.inverse ? -1.f : 1.f};
    for_elements(args.dtype, eight, [&]([[maybe_unused]] auto type, [[maybe_unused]] auto count) {
        launch(rotate<decltype(type), decltype(count)::value>, "rotary", launch_blocks(pieces, threads, "tokens"), threads, 0,
               static_cast<cudaStream_t>(stream), p);
    });
}

}  // namespace trainer::cuda
