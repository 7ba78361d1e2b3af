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
    require_dtype(args->weight_dtype, "weight_dtype");
    require(args->tokens >= 0, "tokens", "must not be negative");
    require(args->heads >= 1, "heads", "must be at least 1");
    require(args->width >= 1, "width", "must be at least 1");
    require(args->weight_D != nullptr, "weight_D", "is null");
    require(args->tokens == 0 || args->rstd_TN != nullptr, "rstd_TN", "is null");
}

int64_t scratch_bytes([[maybe_unused]] tn_device device, [[maybe_unused]] int64_t tokens, [[maybe_unused]] int64_t heads, [[maybe_unused]] int64_t width) {
#ifdef TN_HAS_CUDA
    if (on_cuda(device)) return cuda::rms_norm_backward_scratch_bytes(tokens, heads, width);
#endif
    return 0;
}

}  // namespace

tn_status tn_rms_norm_forward(const tn_rms_norm_forward_args* args, [[maybe_unused]] void* stream) {
    return guard([&] {
        require_common(args);
        require(args->epsilon >= 0, "epsilon", "must not be negative");
        require(args->reserved == 0, "reserved", "must be 0");
        require_tensor(args->x_TND, args->tokens, args->heads, args->width, "x_TND");
        require_tensor(args->y_TND, args->tokens, args->heads, args->width, "y_TND");
        if (args->residual_TND.data != nullptr) {
            require_tensor(args->residual_TND, args->tokens, args->heads, args->width, "residual_TND");
            require_tensor(args->sum_TND, args->tokens, args->heads, args->width, "sum_TND");
        } else {
            require(args->sum_TND.data == nullptr, "sum_TND", "must be null where there is no residual");
        }
#ifdef TN_HAS_CUDA
        if (on_cuda(args->device)) return cuda::rms_norm_forward(*args, stream);
#endif
        cpu_engine().rms_norm_forward(*args);
    });
}

tn_status tn_rms_norm_backward_scratch_bytes(tn_device device, int64_t tokens, int64_t heads, int64_t width, int64_t* bytes) {
    return guard([&] {
        (void)on_cuda(device);
        require(tokens >= 0, "tokens", "must not be negative");
        require(heads >= 1, "heads", "must be at least 1");
        require(width >= 1, "width", "must be at least 1");
        require(bytes != nullptr, "bytes", "is null");
        *bytes = scratch_bytes(device, tokens, heads, width);
    });
}

tn_status tn_rms_norm_backward(const tn_rms_norm_backward_args* args, [[maybe_unused]] void* stream) {
    return guard([&] {
        require_common(args);
        require_tensor(args->sum_TND, args->tokens, args->heads, args->width, "sum_TND");
        require_tensor(args->dy_TND, args->tokens, args->heads, args->width, "dy_TND");
        require_tensor(args->dx_TND, args->tokens, args->heads, args->width, "dx_TND");
        if (args->dsum_TND.data != nullptr)
            require_tensor(args->dsum_TND, args->tokens, args->heads, args->width, "dsum_TND");
        if (args->dweight_D != nullptr)
            if (const int64_t needed = scratch_bytes(args->device, args->tokens, args->heads, args->width); needed > 0) {
                require(args->scratch != nullptr, "scratch", "is null");
                if (args->scratch_bytes < needed) refuse("scratch_bytes", "must be at least " + std::to_string(needed) + ", got " + std::to_string(args->scratch_bytes));
            }
#ifdef TN_HAS_CUDA
        if (on_cuda(args->device)) return cuda::rms_norm_backward(*args, stream);
#endif
        cpu_engine().rms_norm_backward(*args);
    });
}
