// Starts a kernel or throws what CUDA said.
#pragma once
#include "status.h"

#include <cuda_runtime.h>

#include <limits>
#include <string>

namespace trainer::cuda {

inline void check(cudaError_t error, const char* what) {
    if (error == cudaSuccess) return;
    (void)cudaGetLastError();  // the error is reported here, not by whoever calls next
    throw Refusal(TN_CUDA_ERROR, std::string(what) + ": " + cudaGetErrorString(error));
}

// Thread blocks for so many threads' work.
inline int64_t launch_blocks(int64_t work, int threads, const char* argument) {
    const int64_t blocks = (work + threads - 1) / threads;
    if (blocks > std::numeric_limits<int32_t>::max()) refuse(argument, "is more than one launch can number");
    return blocks;
}

// cluster: so many thread blocks run at the same time and reach each other's shared memory.
template <class Parameters>
void launch(void (*kernel)(Parameters), const char* name, int64_t blocks, int threads, int shared_bytes, cudaStream_t stream,
            const Parameters& parameters, int cluster = 1) {
    if (shared_bytes > 48 * 1024)
        check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes),
              name);
    void* arguments[] = {const_cast<Parameters*>(&parameters)};
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim = {static_cast<unsigned>(cluster), 1, 1};
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(blocks));
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = cluster > 1 ? 1 : 0;
    check(cudaLaunchKernelExC(&config, reinterpret_cast<const void*>(kernel), arguments), name);
}

}  // namespace trainer::cuda
