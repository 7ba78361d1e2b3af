#include "tensor_map.h"

#include "launch.h"

#include <cudaTypedefs.h>

namespace trainer::cuda {

namespace {

// From the driver that is loaded, so that the library itself needs no driver to be loaded.
PFN_cuTensorMapEncodeTiled_v12000 encoder() {
    static const auto encode = [] {
        void* function = nullptr;
        cudaDriverEntryPointQueryResult found;
#if CUDART_VERSION >= 12050
        check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found),
                "cuTensorMapEncodeTiled");
#else
        check(cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found), "cuTensorMapEncodeTiled");
#endif
        if (found != cudaDriverEntryPointSuccess) throw Refusal(TN_CUDA_ERROR, "cuTensorMapEncodeTiled: the driver is older than CUDA 12");
        return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
    }();
    return encode;
}

CUtensorMap encode(CUtensorMapDataType type, int bytes, const tn_tensor& t, int64_t tokens, int32_t heads, int32_t head_dim, int32_t rows) {
    CUtensorMap map{};
    if (tokens == 0) return map;  // no block will be copied
    // The stride of an axis of one entry is never used, yet the driver wants it to be a multiple of 16 bytes above zero.
    const auto in_bytes = [&](int64_t stride, int64_t entries) { return static_cast<cuuint64_t>(entries > 1 ? stride : head_dim) * bytes; };
    const cuuint64_t sizes[3] = {cuuint64_t(head_dim), cuuint64_t(heads), cuuint64_t(tokens)};
    const cuuint64_t strides[2] = {in_bytes(t.head_stride, heads), in_bytes(t.token_stride, tokens)};
    const cuuint32_t box[3] = {cuuint32_t(128 / bytes), 1, cuuint32_t(rows)}, every[3] = {1, 1, 1};
    const CUresult result = encoder()(&map, type, 3, t.data, sizes, strides, box, every, CU_TENSOR_MAP_INTERLEAVE_NONE,
                                      CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result != CUDA_SUCCESS) throw Refusal(TN_CUDA_ERROR, "cuTensorMapEncodeTiled: error " + std::to_string(result));
    return map;
}

}  // namespace

CUtensorMap tensor_map(const tn_tensor& t, tn_dtype dtype, int64_t tokens, int32_t heads, int32_t head_dim, int32_t rows) {
    return encode(dtype == TN_BFLOAT16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2, t, tokens, heads, head_dim,
                  rows);
}

CUtensorMap float_tensor_map(float* data, int64_t tokens, int32_t heads, int32_t head_dim, int32_t rows) {
    return encode(CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 4, {data, head_dim, tokens * head_dim}, tokens, heads, head_dim, rows);
}

}  // namespace trainer::cuda
