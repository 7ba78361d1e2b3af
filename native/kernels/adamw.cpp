#include "engine.h"
#ifdef TN_HAS_CUDA
#include "cuda/engine.h"
#endif
#include "status.h"

#include <cmath>

using namespace trainer;

namespace {

void require_step(const tn_adamw_args& args) {
    require_struct_size(args.struct_size, sizeof args);
    (void)on_cuda(args.device);
    require_dtype(args.gradient_dtype, "gradient_dtype");
    require(args.reserved == 0, "reserved", "must be 0");
    require(args.count >= 0, "count", "must not be negative");
    require(args.learning_rate >= 0 && std::isfinite(args.learning_rate), "learning_rate", "must be finite and not negative");
    require(args.beta1 >= 0 && args.beta1 < 1, "beta1", "must be in [0, 1)");
    require(args.beta2 >= 0 && args.beta2 < 1, "beta2", "must be in [0, 1)");
    require(args.epsilon >= 0 && std::isfinite(args.epsilon), "epsilon", "must be finite and not negative");
    require(args.weight_decay >= 0 && std::isfinite(args.weight_decay), "weight_decay", "must be finite and not negative");
    require(std::isfinite(args.gradient_scale), "gradient_scale", "must be finite");
    require(args.step >= 1, "step", "must be at least 1");
    if (args.count == 0) return;
    require(args.parameter != nullptr, "parameter", "is null");
    require(args.first_moment != nullptr, "first_moment", "is null");
    require(args.second_moment != nullptr, "second_moment", "is null");
    require(args.gradient != nullptr, "gradient", "is null");
}

}  // namespace

tn_status tn_adamw(const tn_adamw_args* args, void* stream) {
    return tn_adamw_each(args, 1, stream);
}

tn_status tn_adamw_each(const tn_adamw_args* args, int64_t count, [[maybe_unused]] void* stream) {
    return guard([&] {
        require(count >= 0, "count", "must not be negative");
        require(args != nullptr || count == 0, "args", "is null");
        for (int64_t i = 0; i < count; ++i) {
            require_step(args[i]);
            require(args[i].device == args[0].device, "device", "must be that of the first tensor");
        }
        if (count == 0) return;
#ifdef TN_HAS_CUDA
        if (on_cuda(args[0].device)) return cuda::adamw(args, count, stream);
#endif
        for (int64_t i = 0; i < count; ++i)
            if (args[i].count > 0) cpu_engine().adamw(args[i]);
    });
}

tn_status tn_sum_of_squares(tn_device device, tn_dtype dtype, int64_t count, const void* x, double* result, void*) {
    return guard([&] {
        require_device(device);
        require_dtype(dtype, "dtype");
        require(count >= 0, "count", "must not be negative");
        require(count == 0 || x != nullptr, "x", "is null");
        require(result != nullptr, "result", "is null");
        *result = cpu_engine().sum_of_squares(dtype, count, x);
    });
}

tn_status tn_accumulate(tn_device device, tn_dtype addend_dtype, int64_t count, float* sum, const void* addend, [[maybe_unused]] void* stream) {
    return guard([&] {
        (void)on_cuda(device);
        require_dtype(addend_dtype, "addend_dtype");
        require(count >= 0, "count", "must not be negative");
        require(count == 0 || sum != nullptr, "sum", "is null");
        require(count == 0 || addend != nullptr, "addend", "is null");
#ifdef TN_HAS_CUDA
        if (on_cuda(device)) return cuda::accumulate(addend_dtype, count, sum, addend, stream);
#endif
        cpu_engine().accumulate(addend_dtype, count, sum, addend);
    });
}
