#include "matmul.h"

#include "simd.h"

namespace trainer::TN_ISA {

namespace {

constexpr int block_rows = 6;  // 6 x 16 accumulators fill 12 of the 16 vector registers of AVX2
constexpr int64_t chain = 32;  // products added up one after another; a longer sum is made of such, or its roundings would add up

template <int rows>
TN_INLINE void block(int64_t k, const float* a, int64_t row_stride, int64_t column_stride, const float* b, int64_t ldb,
                     float* c, int64_t ldc, bool add) {
    for (int64_t begin = 0; begin < k || begin == 0; begin += chain) {
        f32x8 left[rows], right[rows];
#pragma GCC unroll 6
        for (int i = 0; i < rows; ++i) left[i] = right[i] = splat(0);
        for (int64_t p = begin; p < k && p < begin + chain; ++p) {
            const f32x8 b_left = load(b), b_right = load(b + lanes);
#pragma GCC unroll 6
            for (int i = 0; i < rows; ++i) {
                const f32x8 x = splat(a[i * row_stride]);
                left[i] += x * b_left;
                right[i] += x * b_right;
            }
            a += column_stride;
            b += ldb;
        }
#pragma GCC unroll 6
        for (int i = 0; i < rows; ++i) {
            if (begin > 0 || add) {
                left[i] += load(c + i * ldc);
                right[i] += load(c + i * ldc + lanes);
            }
            store(c + i * ldc, left[i]);
            store(c + i * ldc + lanes, right[i]);
        }
    }
}

}  // namespace

void matmul(int64_t m, int64_t n, int64_t k, const float* a, int64_t row_stride, int64_t column_stride,
                      const float* b, int64_t ldb, float* c, int64_t ldc, bool add) {
    for (int64_t j = 0; j < n; j += matmul_columns) {
        int64_t i = 0;
        for (; i + block_rows <= m; i += block_rows)
            block<6>(k, a + i * row_stride, row_stride, column_stride, b + j, ldb, c + i * ldc + j, ldc, add);
        const float* a_rest = a + i * row_stride;
        float* c_rest = c + i * ldc + j;
        switch (m - i) {
            case 5: block<5>(k, a_rest, row_stride, column_stride, b + j, ldb, c_rest, ldc, add); break;
            case 4: block<4>(k, a_rest, row_stride, column_stride, b + j, ldb, c_rest, ldc, add); break;
            case 3: block<3>(k, a_rest, row_stride, column_stride, b + j, ldb, c_rest, ldc, add); break;
            case 2: block<2>(k, a_rest, row_stride, column_stride, b + j, ldb, c_rest, ldc, add); break;
            case 1: block<1>(k, a_rest, row_stride, column_stride, b + j, ldb, c_rest, ldc, add); break;
            default: break;
        }
    }
}

}  // namespace trainer::TN_ISA
