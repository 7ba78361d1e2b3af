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

struct LaunchOptions {
    int cluster = 1;     // so many thread blocks run at the same time and reach each other's shared memory
    bool early = false;  // Hopper: may start before the kernel ahead in the stream, one of ours, has ended; calls wait_for_last_kernel
};

template <class Parameters>
void launch(void (*kernel)(Parameters), const char* name, int64_t blocks, int threads, int shared_bytes, cudaStream_t stream,
            const Parameters& parameters, const LaunchOptions& options = {}) {
    if (shared_bytes > 48 * 1024)
        check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes),
              name);
    void* arguments[] = {const_cast<Parameters*>(&parameters)};
    cudaLaunchAttribute attributes[2]{};
    unsigned count = 0;
    if (options.cluster > 1) {
        attributes[count].id = cudaLaunchAttributeClusterDimension;
        attributes[count++].val.clusterDim = {static_cast<unsigned>(options.cluster), 1, 1};
    }
#if CUDART_VERSION >= 12030
    static const bool graphs_take_early_kernels = [] {
        int driver = 0;
        return cudaDriverGetVersion(&driver) == cudaSuccess && driver >= 12030;
    }();
    if (options.early && graphs_take_early_kernels) {
        attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attributes[count++].val.programmaticStreamSerializationAllowed = 1;
    }
#endif
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(blocks));
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    config.attrs = attributes;
    config.numAttrs = count;
    check(cudaLaunchKernelExC(&config, reinterpret_cast<const void*>(kernel), arguments), name);
}

}  // namespace trainer::cuda
