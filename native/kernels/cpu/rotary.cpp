#include "ops.h"
#include "rows.h"

namespace trainer::TN_ISA {

namespace {

template <class T>
TN_INLINE void rotate_token(const tn_rotary_args& args, int64_t token) {
    const int64_t half = args.head_dim / 2;
    const float* cos = args.cos_TH2 + token * half;
    const float* sin = args.sin_TH2 + token * half;
    const float sign = args.inverse ? -1.0f : 1.0f;
    for (int64_t head = 0; head < args.heads; ++head) {
        const T* x = row_at<const T>(args.x_TNH, token * args.heads + head, args.heads);
        T* out = row_at<T>(args.out_TNH, token * args.heads + head, args.heads);
        for_lanes(half, [&](int64_t i, auto get, auto put) __attribute__((always_inline)) {
            const f32x8 low = get(x + i), high = get(x + half + i), c = get(cos + i), s = sign * get(sin + i);
            put(out + i, low * c - high * s);
            put(out + half + i, high * c + low * s);
        });
    }
}

void rotate(const tn_rotary_args& args, int64_t token) {
    args.dtype == TN_FLOAT32 ? rotate_token<float>(args, token) : rotate_token<bfloat16>(args, token);
}

}  // namespace

void rotary(const tn_rotary_args& args) {
#pragma omp parallel for schedule(static)
    for (int64_t token = 0; token < args.tokens; ++token) rotate(args, token);
}

}  // namespace trainer::TN_ISA
