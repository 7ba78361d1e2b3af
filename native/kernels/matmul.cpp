#include "engine.h"
#include "status.h"

using namespace trainer;

namespace {

void require_matrix(const void* data, int64_t stride, int64_t rows, int64_t columns, const char* argument, const char* stride_argument) {
    if (rows == 0 || columns == 0) return;
    require(data != nullptr, argument, "is null");
    if (rows > 1 && stride < columns)
        refuse(stride_argument, "must be at least " + std::to_string(columns) + ", got " + std::to_string(stride));
}

}  // namespace

tn_status tn_matmul(const tn_matmul_args* args, void*) {
    return guard([&] {
        require(args != nullptr, "args", "is null");
        require_struct_size(args->struct_size, sizeof *args);
        require_device(args->device);
        require_dtype(args->dtype, "dtype");
        require_dtype(args->result_dtype, "result_dtype");
        require(args->a_transposed == 0 || args->a_transposed == 1, "a_transposed", "must be 0 or 1");
        require(args->b_transposed == 0 || args->b_transposed == 1, "b_transposed", "must be 0 or 1");
        require(args->accumulate == 0 || args->accumulate == 1, "accumulate", "must be 0 or 1");
        require(args->reserved == 0, "reserved", "must be 0");
        const int64_t m = args->rows, n = args->columns, k = args->depth;
        require(m >= 0, "rows", "must not be negative");
        require(n >= 0, "columns", "must not be negative");
        require(k >= 0, "depth", "must not be negative");
        require_matrix(args->a, args->a_stride, args->a_transposed ? k : m, args->a_transposed ? m : k, "a", "a_stride");
        require_matrix(args->b, args->b_stride, args->b_transposed ? n : k, args->b_transposed ? k : n, "b", "b_stride");
        require_matrix(args->c_MN, args->c_stride, m, n, "c_MN", "c_stride");
        if (m > 0 && n > 0) cpu_engine().matmul(*args);
    });
}
