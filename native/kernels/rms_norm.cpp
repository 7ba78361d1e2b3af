#include "engine.h"
#include "status.h"

using namespace trainer;

namespace {

template <class Args>
void require_common(const Args* args) {
    require(args != nullptr, "args", "is null");
    require_struct_size(args->struct_size, sizeof *args);
    require_device(args->device);
    require_dtype(args->dtype, "dtype");
    require_dtype(args->weight_dtype, "weight_dtype");
    require(args->tokens >= 0, "tokens", "must not be negative");
    require(args->heads >= 1, "heads", "must be at least 1");
    require(args->width >= 1, "width", "must be at least 1");
    require(args->weight_D != nullptr, "weight_D", "is null");
    require(args->tokens == 0 || args->rstd_TN != nullptr, "rstd_TN", "is null");
}

}  // namespace

tn_status tn_rms_norm_forward(const tn_rms_norm_forward_args* args, void*) {
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
        cpu_engine().rms_norm_forward(*args);
    });
}

tn_status tn_rms_norm_backward(const tn_rms_norm_backward_args* args, void*) {
    return guard([&] {
        require_common(args);
        require_tensor(args->sum_TND, args->tokens, args->heads, args->width, "sum_TND");
        require_tensor(args->dy_TND, args->tokens, args->heads, args->width, "dy_TND");
        require_tensor(args->dx_TND, args->tokens, args->heads, args->width, "dx_TND");
        if (args->dsum_TND.data != nullptr)
            require_tensor(args->dsum_TND, args->tokens, args->heads, args->width, "dsum_TND");
        cpu_engine().rms_norm_backward(*args);
    });
}
