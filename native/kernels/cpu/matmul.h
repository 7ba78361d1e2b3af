// The one matrix product under attention.
#pragma once
#include <cstdint>

namespace trainer::TN_ISA {

constexpr int matmul_columns = 16;  // columns of a register block: n is a multiple of it

// C[m, n] = A[m, k] * B[k, n], added to C where `add`. Element (i, p) of A is a[i*row_stride + p*column_stride]; B and C are
// row-major. Each element of C is summed over p in ascending order, in chains of the same length whatever the blocking.
void matmul(int64_t m, int64_t n, int64_t k, const float* a, int64_t row_stride, int64_t column_stride, const float* b,
            int64_t ldb, float* c, int64_t ldc, bool add);

}  // namespace trainer::TN_ISA
