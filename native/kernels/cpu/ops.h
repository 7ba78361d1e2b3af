// The operations of the CPU engine, in the namespace of the instruction set that they are compiled for.
#pragma once
#include "trainer_native.h"

namespace trainer::TN_ISA {

void attention_forward(const tn_attention_forward_args& args);
void attention_backward(const tn_attention_backward_args& args);
int64_t attention_backward_scratch_bytes(const tn_attention_shape& shape);
void rms_norm_forward(const tn_rms_norm_forward_args& args);
void rms_norm_backward(const tn_rms_norm_backward_args& args);
void rotary(const tn_rotary_args& args);
void swiglu_forward(const tn_swiglu_forward_args& args);
void swiglu_backward(const tn_swiglu_backward_args& args);
void matmul(const tn_matmul_args& args);
void cross_entropy(const tn_cross_entropy_args& args);
void adamw(const tn_adamw_args& args);
double sum_of_squares(tn_dtype dtype, int64_t count, const void* x);
void accumulate(tn_dtype addend_dtype, int64_t count, float* sum, const void* addend);
void dropout(const tn_dropout_args& args);

}  // namespace trainer::TN_ISA
