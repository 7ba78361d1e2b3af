#include "engine.h"
#ifdef TN_HAS_CUDA
#include "cuda/engine.h"
#endif
#include "status.h"

using namespace trainer;

namespace {

template <class Args>
void require_common(const Args* args) {
    require(args != nullptr, "args", "is null");
    require_struct_size(args->struct_size, sizeof *args);
    (void)on_cuda(args->device);
    require_dtype(args->dtype, "dtype");
    require(args->reserved == 0, "reserved", "must be 0");
    require(args->tokens >= 0, "tokens", "must not be negative");
    require(args->width >= 1, "width", "must be at least 1");
}

void require_rows(const void* data, int64_t stride, int64_t tokens, int64_t width, const char* argument, const char* stride_argument) {
    if (tokens == 0) return;
    require(data != nullptr, argument, "is null");
    if (tokens > 1 && stride < width)
        refuse(stride_argument, "must be at least " + std::to_string(width) + ", got " + std::to_string(stride));
}

}  // namespace

tn_status tn_swiglu_forward(const tn_swiglu_forward_args* args, [[maybe_unused]] void* stream) {
    return guard([&] {
        require_common(args);
        require_rows(args->gate_up_T2F, args->gate_up_stride, args->tokens, 2 * args->width, "gate_up_T2F", "gate_up_stride");
        require_rows(args->out_TF, args->out_stride, args->tokens, args->width, "out_TF", "out_stride");
#ifdef TN_HAS_CUDA
        if (on_cuda(args->device)) return cuda::swiglu_forward(*args, stream);
#endif
        cpu_engine().swiglu_forward(*args);
    });
}

tn_status tn_swiglu_backward(const tn_swiglu_backward_args* args, [[maybe_unused]] void* stream) {
    return guard([&] {
        require_common(args);
        require_rows(args->gate_up_T2F, args->gate_up_stride, args->tokens, 2 * args->width, "gate_up_T2F", "gate_up_stride");
        require_rows(args->dout_TF, args->dout_stride, args->tokens, args->width, "dout_TF", "dout_stride");
        require_rows(args->dgate_up_T2F, args->dgate_up_stride, args->tokens, 2 * args->width, "dgate_up_T2F", "dgate_up_stride");
#ifdef TN_HAS_CUDA
        if (on_cuda(args->device)) return cuda::swiglu_backward(*args, stream);
#endif
        cpu_engine().swiglu_backward(*args);
    });
}
