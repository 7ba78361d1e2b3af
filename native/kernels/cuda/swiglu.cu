// SwiGLU and its gradient: a thread takes up to eight columns of a token.
#include "device.h"
#include "elements.cuh"
#include "engine.h"

namespace trainer::cuda {

namespace {

constexpr int threads = 256;

struct Parameters {
    const void *gate_up, *dout;
    void* result;  // out, or dgate_up
    int64_t gate_up_stride, dout_stride, result_stride;
    int64_t pieces;  // of all tokens
    int64_t width;
};

template <class T, int Count, bool Backward>
__global__ void __launch_bounds__(threads) swiglu(const __grid_constant__ Parameters p) {
    const int64_t piece = int64_t{blockIdx.x} * threads + threadIdx.x, token_pieces = p.width / Count;
    if (piece >= p.pieces) return;
    const int64_t token = piece / token_pieces, column = piece % token_pieces * Count;
    const int64_t from = token * p.gate_up_stride + column, to = token * p.result_stride + column;
    float gate[Count], up[Count];
    load(T{}, p.gate_up, from, gate);
    load(T{}, p.gate_up, from + p.width, up);
    [[maybe_unused]] float dout[Count];
    if constexpr (Backward) load(T{}, p.dout, token * p.dout_stride + column, dout);
#pragma unroll
    for (int i = 0; i < Count; ++i) {
        const float sigmoid = 1 / (1 + exponential(T{}, -gate[i]));
        if constexpr (Backward) {
            const float through = dout[i] * sigmoid, dgate = through * up[i] * (1 + gate[i] * (1 - sigmoid));
            up[i] = through * gate[i];
            gate[i] = dgate;
        } else {
            gate[i] *= sigmoid * up[i];
        }
    }
    store(T{}, p.result, to, gate);
    if constexpr (Backward) store(T{}, p.result, to + p.width, up);
}

// Backward where there is a dout.
void start(const Parameters& rows, tn_dtype dtype, int64_t tokens, void* stream) {
    Parameters p = rows;
    const bool eight = takes_eight(p.width) && takes_eight(p.gate_up) && takes_eight(p.gate_up_stride) && takes_eight(p.dout) &&
                       takes_eight(p.dout_stride) && takes_eight(p.result) && takes_eight(p.result_stride);
    p.pieces = tokens * (p.width / (eight ? 8 : 1));
    for_elements(dtype, eight, [&]([[maybe_unused]] auto type, [[maybe_unused]] auto count) {
        using T = decltype(type);
        launch(p.dout ? swiglu<T, decltype(count)::value, true> : swiglu<T, decltype(count)::value, false>, "SwiGLU",
               launch_blocks(p.pieces, threads, "tokens"), threads, 0, static_cast<cudaStream_t>(stream), p);
    });
}

}  // namespace

void swiglu_forward(const tn_swiglu_forward_args& args, void* stream) {
    if (args.tokens == 0) return;
    const Device device = current_device();
    require_on_device(args.gate_up_T2F, device, "gate_up_T2F");
    require_on_device(args.out_TF, device, "out_TF");
    start({args.gate_up_T2F, nullptr, args.out_TF, args.gate_up_stride, 0, args.out_stride, 0, args.width}, args.dtype, args.tokens, stream);
}

void swiglu_backward(const tn_swiglu_backward_args& args, void* stream) {
    if (args.tokens == 0) return;
    const Device device = current_device();
    require_on_device(args.gate_up_T2F, device, "gate_up_T2F");
    require_on_device(args.dout_TF, device, "dout_TF");
    require_on_device(args.dgate_up_T2F, device, "dgate_up_T2F");
    start({args.gate_up_T2F, args.dout_TF, args.dgate_up_T2F, args.gate_up_stride, args.dout_stride, args.dgate_up_stride, 0, args.width},
          args.dtype, args.tokens, stream);
}

}  // namespace trainer::cuda
