// The attention kernels. Each trusts its arguments; attention.cpp has checked them and chosen.
#pragma once
#include "tiles.h"

namespace trainer::cuda {

// Writes delta, what the softmax's gradient subtracts in every row: the sum over the head dimension of out * dout. Also
// clears dq_NTH, float32 [q_heads, q_tokens, head_dim], unless it is null.
void attention_delta(const tn_attention_backward_args& args, const RowFloats& delta, float* dq_NTH, cudaStream_t stream);

// Where delta lies until dq itself is written: in its rows.
RowFloats delta_in_dq(const tn_attention_backward_args& args);

// Any chip from sm_80, head_dim a multiple of 8 up to 128. Backward is deterministic; delta is contiguous [q_heads, q_tokens].
void portable_attention_forward(const tn_attention_forward_args& args, cudaStream_t stream);
void portable_attention_backward(const tn_attention_backward_args& args, const float* delta, cudaStream_t stream);

// The same, faster, but dq is added up in any order, in dq_NTH, which was cleared; each 16 of its columns come to lie as mma's
// lanes hold them. Uses up to shared_bytes of shared memory a thread block, and needs what `fits` asks for.
bool portable_attention_backward_any_order_fits(int32_t head_dim, int32_t shared_bytes);
void portable_attention_backward_any_order(const tn_attention_backward_args& args, const RowFloats& delta, float* dq_NTH,
                                           int32_t shared_bytes, cudaStream_t stream);

// sm_90a, head_dim 64 or 128.
void hopper_attention_forward(const tn_attention_forward_args& args, cudaStream_t stream);
// Deterministic.
void hopper_attention_backward(const tn_attention_backward_args& args, const RowFloats& delta, const Sharing& sharing,
                               cudaStream_t stream);
// The same, faster where queries see many keys, but dq is added up in any order, in dq_NTH, which was cleared.
void hopper_attention_backward_any_order(const tn_attention_backward_args& args, const RowFloats& delta, float* dq_NTH,
                                         const Sharing& sharing, cudaStream_t stream);

// dq = scale * dq_NTH, rounded to its type; in_lane_order: as the portable kernel leaves it.
void attention_round_dq(const tn_attention_backward_args& args, const float* dq_NTH, bool in_lane_order, cudaStream_t stream);

}  // namespace trainer::cuda
