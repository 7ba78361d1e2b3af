#include "ops.h"
#include "simd.h"

namespace trainer::TN_ISA {

namespace {

template <class T>
TN_INLINE void forward_typed(const tn_swiglu_forward_args& args, int64_t token) {
    const T* gate = static_cast<const T*>(args.gate_up_T2F) + token * args.gate_up_stride;
    const T* up = gate + args.width;
    T* out = static_cast<T*>(args.out_TF) + token * args.out_stride;
    for_lanes(args.width, [&](int64_t i, auto get, auto put) __attribute__((always_inline)) {
        const f32x8 g = get(gate + i);
        put(out + i, g * sigmoid(g) * get(up + i));
    });
}

void forward_token(const tn_swiglu_forward_args& args, int64_t token) {
    args.dtype == TN_FLOAT32 ? forward_typed<float>(args, token) : forward_typed<bfloat16>(args, token);
}

template <class T>
TN_INLINE void backward_typed(const tn_swiglu_backward_args& args, int64_t token) {
    const T* gate = static_cast<const T*>(args.gate_up_T2F) + token * args.gate_up_stride;
    const T* up = gate + args.width;
    const T* dout = static_cast<const T*>(args.dout_TF) + token * args.dout_stride;
    T* dgate = static_cast<T*>(args.dgate_up_T2F) + token * args.dgate_up_stride;
    T* dup = dgate + args.width;
    for_lanes(args.width, [&](int64_t i, auto get, auto put) __attribute__((always_inline)) {
        const f32x8 g = get(gate + i), u = get(up + i), d = get(dout + i), s = sigmoid(g);
        put(dgate + i, d * u * s * (1.0f + g * (1.0f - s)));
        put(dup + i, d * g * s);
    });
}

void backward_token(const tn_swiglu_backward_args& args, int64_t token) {
    args.dtype == TN_FLOAT32 ? backward_typed<float>(args, token) : backward_typed<bfloat16>(args, token);
}

}  // namespace

void swiglu_forward(const tn_swiglu_forward_args& args) {
#pragma omp parallel for schedule(static)
    for (int64_t token = 0; token < args.tokens; ++token) forward_token(args, token);
}

void swiglu_backward(const tn_swiglu_backward_args& args) {
#pragma omp parallel for schedule(static)
    for (int64_t token = 0; token < args.tokens; ++token) backward_token(args, token);
}

}  // namespace trainer::TN_ISA
