/* The header is C11: this file is compiled as C, pedantically, and pins the layout that other languages mirror. */
#include "trainer_native.h"

_Static_assert(sizeof(tn_tensor) == 24, "tn_tensor");
_Static_assert(sizeof(tn_attention_shape) == 72, "tn_attention_shape");
_Static_assert(sizeof(tn_attention_forward_args) == 184, "tn_attention_forward_args");
_Static_assert(sizeof(tn_attention_backward_args) == 296, "tn_attention_backward_args");
_Static_assert(sizeof(tn_rms_norm_forward_args) == 160, "tn_rms_norm_forward_args");
_Static_assert(sizeof(tn_rms_norm_backward_args) == 176, "tn_rms_norm_backward_args");
_Static_assert(sizeof(tn_rotary_args) == 104, "tn_rotary_args");
_Static_assert(sizeof(tn_swiglu_forward_args) == 64, "tn_swiglu_forward_args");
_Static_assert(sizeof(tn_swiglu_backward_args) == 80, "tn_swiglu_backward_args");
_Static_assert(sizeof(tn_cross_entropy_args) == 72, "tn_cross_entropy_args");
_Static_assert(sizeof(tn_adamw_args) == 120, "tn_adamw_args");
_Static_assert(sizeof(tn_dropout_args) == 56, "tn_dropout_args");
_Static_assert(TN_OK == 0 && TN_INVALID_ARGUMENT == 1 && TN_UNSUPPORTED == 2 && TN_CUDA_ERROR == 3 &&
                   TN_OUT_OF_MEMORY == 4 && TN_INTERNAL == 5,
               "statuses are only ever appended");

/* Called by the test program, so that a C translation unit also links. */
int32_t abi_version_as_c_sees_it(void);
int32_t abi_version_as_c_sees_it(void) { return TN_ABI_VERSION; }
