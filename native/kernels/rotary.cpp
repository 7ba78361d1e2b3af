#include "engine.h"
#ifdef TN_HAS_CUDA
#include "cuda/engine.h"
#endif
#include "status.h"

using namespace trainer;

tn_status tn_rotary(const tn_rotary_args* args, [[maybe_unused]] void* stream) {
    return guard([&] {
        require(args != nullptr, "args", "is null");
        require_struct_size(args->struct_size, sizeof *args);
        (void)on_cuda(args->device);
        require_dtype(args->dtype, "dtype");
        require(args->inverse == 0 || args->inverse == 1, "inverse", "must be 0 or 1");
        require(args->tokens >= 0, "tokens", "must not be negative");
        require(args->heads >= 1, "heads", "must be at least 1");
        require(args->head_dim >= 2 && args->head_dim % 2 == 0, "head_dim", "must be even and at least 2");
        require_tensor(args->x_TNH, args->tokens, args->heads, args->head_dim, "x_TNH");
        require_tensor(args->out_TNH, args->tokens, args->heads, args->head_dim, "out_TNH");
        require(args->tokens == 0 || args->cos_TH2 != nullptr, "cos_TH2", "is null");
        require(args->tokens == 0 || args->sin_TH2 != nullptr, "sin_TH2", "is null");
#ifdef TN_HAS_CUDA
        if (on_cuda(args->device)) return cuda::rotary(*args, stream);
#endif
        cpu_engine().rotary(*args);
    });
}
