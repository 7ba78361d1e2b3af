#include "ops.h"
#include "rows.h"

#include <algorithm>
#include <cmath>

namespace trainer::TN_ISA {

namespace {

template <class T, class W>
TN_INLINE void forward_row_typed(const tn_rms_norm_forward_args& args, int64_t r) {
    const int64_t width = args.width;
    const T* x = row_at<const T>(args.x_TND, r, args.heads);
    T* y = row_at<T>(args.y_TND, r, args.heads);
    const W* weight = static_cast<const W*>(args.weight_D);
    if (args.residual_TND.data != nullptr) {
        const T* residual = row_at<const T>(args.residual_TND, r, args.heads);
        T* sum = row_at<T>(args.sum_TND, r, args.heads);
        for_lanes(width, [&](int64_t i, auto get, auto put) __attribute__((always_inline)) {
            put(sum + i, get(x + i) + get(residual + i));
        });
        x = sum;
    }
    f32x8 squares = splat(0);
    for_lanes(width, [&](int64_t i, auto get, auto) __attribute__((always_inline)) {
        const f32x8 v = get(x + i);
        squares += v * v;
    });
    const float rstd = 1.0f / std::sqrt(sum_lanes(squares) / static_cast<float>(width) + args.epsilon);
    args.rstd_TN[r] = rstd;
    for_lanes(width, [&](int64_t i, auto get, auto put) __attribute__((always_inline)) {
        put(y + i, get(x + i) * rstd * get(weight + i));
    });
}

void forward_row(const tn_rms_norm_forward_args& args, int64_t r) {
    if (args.dtype == TN_FLOAT32)
        args.weight_dtype == TN_FLOAT32 ? forward_row_typed<float, float>(args, r) : forward_row_typed<float, bfloat16>(args, r);
    else
        args.weight_dtype == TN_FLOAT32 ? forward_row_typed<bfloat16, float>(args, r) : forward_row_typed<bfloat16, bfloat16>(args, r);
}

// With n = x*rstd and g = dy*weight: dx = rstd * (g - n * mean(g*n)).
template <class T, class W>
TN_INLINE void backward_row_typed(const tn_rms_norm_backward_args& args, int64_t r) {
    const int64_t width = args.width;
    const float rstd = args.rstd_TN[r];
    const T* x = row_at<const T>(args.sum_TND, r, args.heads);
    const T* dy = row_at<const T>(args.dy_TND, r, args.heads);
    const T* dsum = row_at<const T>(args.dsum_TND, r, args.heads);
    T* dx = row_at<T>(args.dx_TND, r, args.heads);
    const W* weight = static_cast<const W*>(args.weight_D);
    f32x8 products = splat(0);
    for_lanes(width, [&](int64_t i, auto get, auto) __attribute__((always_inline)) {
        products += get(dy + i) * get(weight + i) * (get(x + i) * rstd);
    });
    const float mean = sum_lanes(products) / static_cast<float>(width);
    for_lanes(width, [&](int64_t i, auto get, auto put) __attribute__((always_inline)) {
        const f32x8 gradient = rstd * (get(dy + i) * get(weight + i) - get(x + i) * rstd * mean);
        put(dx + i, dsum == nullptr ? gradient : gradient + get(dsum + i));
    });
}

void backward_row(const tn_rms_norm_backward_args& args, int64_t r) {
    if (args.dtype == TN_FLOAT32)
        args.weight_dtype == TN_FLOAT32 ? backward_row_typed<float, float>(args, r) : backward_row_typed<float, bfloat16>(args, r);
    else
        args.weight_dtype == TN_FLOAT32 ? backward_row_typed<bfloat16, float>(args, r) : backward_row_typed<bfloat16, bfloat16>(args, r);
}

constexpr int64_t weight_columns = 2 * lanes;  // columns of dweight that one task owns: no two threads add to one element
constexpr int64_t rows_in_float = 8;           // rows summed in float32 before the sum goes to float64

template <class T>
TN_INLINE void weight_columns_typed(const tn_rms_norm_backward_args& args, int64_t column, double* sums) {
    const int64_t rows = args.tokens * args.heads, count = std::min(weight_columns, args.width - column);
    for (int64_t begin = 0; begin < rows; begin += rows_in_float) {
        float partial[weight_columns] = {};
        for (int64_t r = begin; r < std::min(rows, begin + rows_in_float); ++r) {
            const T* x = row_at<const T>(args.sum_TND, r, args.heads) + column;
            const T* dy = row_at<const T>(args.dy_TND, r, args.heads) + column;
            for_lanes(count, [&](int64_t i, auto get, auto) __attribute__((always_inline)) {
                store(partial + i, load(partial + i) + get(dy + i) * get(x + i) * args.rstd_TN[r]);
            });
        }
        for (int64_t i = 0; i < count; ++i) sums[i] += partial[i];
    }
}

void weight_gradient(const tn_rms_norm_backward_args& args, int64_t column) {
    double sums[weight_columns] = {};
    args.dtype == TN_FLOAT32 ? weight_columns_typed<float>(args, column, sums) : weight_columns_typed<bfloat16>(args, column, sums);
    for (int64_t i = 0; i < std::min(weight_columns, args.width - column); ++i) {
        const float sum = static_cast<float>(sums[i]);
        if (args.weight_dtype == TN_FLOAT32)
            from_float(sum, static_cast<float*>(args.dweight_D)[column + i]);
        else
            from_float(sum, static_cast<bfloat16*>(args.dweight_D)[column + i]);
    }
}

}  // namespace

void rms_norm_forward(const tn_rms_norm_forward_args& args) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < args.tokens * args.heads; ++r) forward_row(args, r);
}

void rms_norm_backward(const tn_rms_norm_backward_args& args) {
    // The weight first, because dx may take the place of dy.
    if (args.dweight_D != nullptr) {
#pragma omp parallel for schedule(dynamic)
        for (int64_t column = 0; column < args.width; column += weight_columns) weight_gradient(args, column);
    }
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < args.tokens * args.heads; ++r) backward_row(args, r);
}

}  // namespace trainer::TN_ISA
