#include "../engine.h"

#include "ops.h"

namespace trainer::TN_ISA {

const Engine engine = {
    attention_forward, attention_backward, attention_backward_scratch_bytes, rms_norm_forward, rms_norm_backward, rotary,
    swiglu_forward,    swiglu_backward,    matmul,                           cross_entropy,    adamw,             sum_of_squares,
    accumulate,        dropout,
};

}  // namespace trainer::TN_ISA
