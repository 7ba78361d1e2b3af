// A kernel that does nothing, built for the chips that the portable kernels are built for.
#include "device.h"

#include <cuda_runtime.h>

namespace trainer::cuda {

namespace {

__global__ void nothing() {}

}  // namespace

bool has_image() {
    cudaFuncAttributes attributes{};
    const bool found = cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(nothing)) == cudaSuccess;
    (void)cudaGetLastError();
    return found;
}

}  // namespace trainer::cuda
