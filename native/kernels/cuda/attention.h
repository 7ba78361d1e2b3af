// The attention kernels. Each trusts its arguments; attention.cpp has checked them and chosen.
#pragma once
#include "tiles.h"

namespace trainer::cuda {

// delta[N, q_tokens] = sum over the head dimension of out * dout; scratch of every backward kernel.
void attention_delta(const tn_attention_backward_args& args, float* delta, cudaStream_t stream);

// Any chip from sm_80, head_dim a multiple of 8 up to 128.
void portable_attention_forward(const tn_attention_forward_args& args, cudaStream_t stream);
void portable_attention_backward(const tn_attention_backward_args& args, const float* delta, cudaStream_t stream);

// sm_90a, head_dim 64 or 128.
void hopper_attention_forward(const tn_attention_forward_args& args, cudaStream_t stream);
void hopper_attention_backward(const tn_attention_backward_args& args, const float* delta, cudaStream_t stream);

}  // namespace trainer::cuda
