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

template <class Parameters>
void launch(void (*kernel)(Parameters), const char* name, int64_t blocks, int threads, int shared_bytes, cudaStream_t stream,
            const Parameters& parameters) {
    if (shared_bytes > 48 * 1024)
        check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes),
              name);
    void* arguments[] = {const_cast<Parameters*>(&parameters)};
    check(cudaLaunchKernel(reinterpret_cast<const void*>(kernel), dim3(static_cast<unsigned>(blocks)), dim3(threads), arguments,
                           shared_bytes, stream),
          name);
}

}  // namespace trainer::cuda
