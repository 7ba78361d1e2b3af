#include "ops.h"
#include "simd.h"

#include <cmath>
#include <limits>

namespace trainer::TN_ISA {

namespace {

constexpr int64_t block = 4096;  // logits summed in float32 before the sum goes to float64

template <class T>
TN_INLINE float largest(const T* logits, int64_t count) {
    f32x8 m = splat(-std::numeric_limits<float>::infinity());
    int64_t i = 0;
    for (; i + lanes <= count; i += lanes) m = maximum(load(logits + i), m);
    float result = maximum_lane(m);
    for (; i < count; ++i) result = to_float(logits[i]) > result ? to_float(logits[i]) : result;
    return result;
}

template <class T>
TN_INLINE double exponential_sum(const T* logits, int64_t count, float shift) {
    double total = 0;
    for (int64_t begin = 0; begin < count; begin += block) {
        const int64_t end = begin + block < count ? begin + block : count;
        f32x8 sum = splat(0);
        int64_t i = begin;
        for (; i + lanes <= end; i += lanes) sum += exponential(load(logits + i) - shift);
        float part = sum_lanes(sum);
        for (; i < end; ++i) part += exponential(splat(to_float(logits[i]) - shift))[0];
        total += part;
    }
    return total;
}

template <class T>
TN_INLINE void row_typed(const tn_cross_entropy_args& args, int64_t r) {
    T* logits = static_cast<T*>(args.logits_CV) + r * args.logits_stride;
    const int64_t label = args.labels_C[r], count = args.vocabulary;
    if (label == TN_IGNORE_INDEX) {
        args.loss_C[r] = 0;
        if (args.write_gradient) std::memset(logits, 0, static_cast<size_t>(count) * sizeof(T));
        return;
    }
    const float shift = largest(logits, count);
    const double sum = exponential_sum(logits, count, shift);
    const float at_label = to_float(logits[label]);
    args.loss_C[r] = static_cast<float>(std::log(sum) - (static_cast<double>(at_label) - shift));
    if (!args.write_gradient) return;
    const float factor = static_cast<float>(args.gradient_scale / sum);
    for_lanes(count, [&](int64_t i, auto get, auto put) __attribute__((always_inline)) {
        put(logits + i, exponential(get(logits + i) - shift) * factor);
    });
    const float probability = static_cast<float>(std::exp(static_cast<double>(at_label) - shift) / sum);
    from_float((probability - 1) * args.gradient_scale, logits[label]);
}

void row(const tn_cross_entropy_args& args, int64_t r) {
    args.dtype == TN_FLOAT32 ? row_typed<float>(args, r) : row_typed<bfloat16>(args, r);
}

}  // namespace

void cross_entropy(const tn_cross_entropy_args& args) {
#pragma omp parallel for schedule(dynamic)
    for (int64_t r = 0; r < args.rows; ++r) row(args, r);
}

}  // namespace trainer::TN_ISA
