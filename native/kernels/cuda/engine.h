// The CUDA engine behind the C boundary, which has checked the rules that the header states for every device. These
// functions check, before any launch, what only this engine asks for, and enqueue on the stream.
#pragma once
#include "trainer_native.h"

namespace trainer::cuda {

// Fills in what trainer_native.h says of tn_cuda_probe; never throws.
void describe(tn_cuda_info& info);

void require_attention_shape(const tn_attention_shape& shape);
void attention_forward(const tn_attention_forward_args& args, void* stream);
void attention_backward(const tn_attention_backward_args& args, void* stream);
int64_t attention_backward_scratch_bytes(const tn_attention_shape& shape, bool deterministic);

int64_t rms_norm_backward_scratch_bytes(int64_t tokens, int64_t heads, int64_t width);
void rms_norm_forward(const tn_rms_norm_forward_args& args, void* stream);
void rms_norm_backward(const tn_rms_norm_backward_args& args, void* stream);
void rotary(const tn_rotary_args& args, void* stream);
void swiglu_forward(const tn_swiglu_forward_args& args, void* stream);
void swiglu_backward(const tn_swiglu_backward_args& args, void* stream);
// Does not see the labels: a row whose label is out of range gets NaN.
void cross_entropy(const tn_cross_entropy_args& args, void* stream);
void adamw(const tn_adamw_args* args, int64_t count, void* stream);
void accumulate(tn_dtype addend_dtype, int64_t count, float* sum, const void* addend, void* stream);

}  // namespace trainer::cuda
