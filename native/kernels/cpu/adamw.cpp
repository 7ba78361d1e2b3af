#include "ops.h"
#include "simd.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace trainer::TN_ISA {

namespace {

constexpr int64_t block = 16384;  // elements of one task

TN_INLINE f32x8 square_root(f32x8 x) {
    for (int i = 0; i < lanes; ++i) x[i] = std::sqrt(x[i]);
    return x;
}

template <class T>
TN_INLINE void adamw_typed(const tn_adamw_args& args, int64_t begin, int64_t count) {
    const double correction1 = 1 - std::pow(args.beta1, static_cast<double>(args.step));
    const double correction2 = 1 - std::pow(args.beta2, static_cast<double>(args.step));
    const float keep = static_cast<float>(1 - args.learning_rate * args.weight_decay);
    const float step_size = static_cast<float>(args.learning_rate / correction1);
    const float root_correction2 = static_cast<float>(std::sqrt(correction2)), epsilon = static_cast<float>(args.epsilon);
    const float beta2 = static_cast<float>(args.beta2), scale = static_cast<float>(args.gradient_scale);
    const float new1 = static_cast<float>(1 - args.beta1), new2 = static_cast<float>(1 - args.beta2);
    float* parameter = args.parameter + begin;
    float* first = args.first_moment + begin;
    float* second = args.second_moment + begin;
    const T* gradient = static_cast<const T*>(args.gradient) + begin;
    bfloat16* copy = args.bfloat16_copy == nullptr ? nullptr : static_cast<bfloat16*>(args.bfloat16_copy) + begin;
    for_lanes(count, [&](int64_t i, auto get, auto put) __attribute__((always_inline)) {
        const f32x8 g = get(gradient + i) * scale, old_m = get(first + i);
        const f32x8 m = old_m + new1 * (g - old_m);
        const f32x8 v = beta2 * get(second + i) + new2 * g * g;
        const f32x8 denominator = square_root(v) / root_correction2 + epsilon;
        const f32x8 p = get(parameter + i) * keep - step_size * (m / denominator);
        put(first + i, m);
        put(second + i, v);
        put(parameter + i, p);
        if (copy != nullptr) put(copy + i, p);
    });
}

void adamw_block(const tn_adamw_args& args, int64_t begin, int64_t count) {
    args.gradient_dtype == TN_FLOAT32 ? adamw_typed<float>(args, begin, count) : adamw_typed<bfloat16>(args, begin, count);
}

template <class T>
TN_INLINE double squares_typed(const T* x, int64_t count) {
    double sums[lanes] = {};
    for_lanes(count, [&](int64_t i, auto get, auto) __attribute__((always_inline)) {
        const f32x8 v = get(x + i);
        for (int lane = 0; lane < lanes; ++lane) sums[lane] += static_cast<double>(v[lane]) * v[lane];
    });
    return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

double squares_block(tn_dtype dtype, const void* x, int64_t begin, int64_t count) {
    return dtype == TN_FLOAT32 ? squares_typed(static_cast<const float*>(x) + begin, count)
                               : squares_typed(static_cast<const bfloat16*>(x) + begin, count);
}

template <class T>
TN_INLINE void accumulate_typed(float* sum, const T* addend, int64_t count) {
    for_lanes(count, [&](int64_t i, auto get, auto put) __attribute__((always_inline)) {
        put(sum + i, get(sum + i) + get(addend + i));
    });
}

void accumulate_block(tn_dtype dtype, float* sum, const void* addend, int64_t begin, int64_t count) {
    dtype == TN_FLOAT32 ? accumulate_typed(sum + begin, static_cast<const float*>(addend) + begin, count)
                        : accumulate_typed(sum + begin, static_cast<const bfloat16*>(addend) + begin, count);
}

}  // namespace

void adamw(const tn_adamw_args& args) {
#pragma omp parallel for schedule(static)
    for (int64_t begin = 0; begin < args.count; begin += block) adamw_block(args, begin, std::min(block, args.count - begin));
}

double sum_of_squares(tn_dtype dtype, int64_t count, const void* x) {
    std::vector<double> partials(static_cast<size_t>((count + block - 1) / block));
#pragma omp parallel for schedule(static)
    for (int64_t begin = 0; begin < count; begin += block)
        partials[static_cast<size_t>(begin / block)] = squares_block(dtype, x, begin, std::min(block, count - begin));
    double sum = 0;
    for (double partial : partials) sum += partial;
    return sum;
}

void accumulate(tn_dtype addend_dtype, int64_t count, float* sum, const void* addend) {
#pragma omp parallel for schedule(static)
    for (int64_t begin = 0; begin < count; begin += block)
        accumulate_block(addend_dtype, sum, addend, begin, std::min(block, count - begin));
}

}  // namespace trainer::TN_ISA
