// Tensor maps: how the copy engine finds the rows of a matrix in global memory.
#pragma once
#include "tiles.h"

#include <cuda.h>

namespace trainer::cuda {

// A map of [tokens, heads, head_dim] from which one copy takes 64 columns of `rows` tokens of one head, swizzled as
// shared_tile.cuh lays pages out; what lies beyond the tensor arrives as zeros.
CUtensorMap tensor_map(const tn_tensor& tensor, tn_dtype dtype, int64_t tokens, int32_t heads, int32_t head_dim, int32_t rows);

// A map of contiguous float32 [heads, tokens, head_dim], for boxes of 32 columns of `rows` tokens of one head.
CUtensorMap float_tensor_map(float* data, int64_t tokens, int32_t heads, int32_t head_dim, int32_t rows);

}  // namespace trainer::cuda
