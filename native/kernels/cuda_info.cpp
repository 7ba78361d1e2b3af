#include "status.h"
#ifdef TN_HAS_CUDA
#include "cuda/engine.h"
#endif

using namespace trainer;

tn_status tn_cuda_probe(tn_cuda_info* info) {
    return guard([&] {
        require(info != nullptr, "info", "is null");
        require_struct_size(info->struct_size, sizeof *info);
        *info = tn_cuda_info{};
        info->struct_size = sizeof *info;
#ifdef TN_HAS_CUDA
        cuda::describe(*info);
#endif
    });
}
