#include "device.h"

#include "launch.h"

namespace trainer::cuda {

Device current_device() {
    Device d{};
    const cudaError_t error = cudaGetDevice(&d.index);
    if (error != cudaSuccess) {
        (void)cudaGetLastError();
        throw Refusal(TN_UNSUPPORTED, std::string("device: no usable CUDA device: ") + cudaGetErrorString(error));
    }
    check(cudaDeviceGetAttribute(&d.major, cudaDevAttrComputeCapabilityMajor, d.index), "device");
    check(cudaDeviceGetAttribute(&d.minor, cudaDevAttrComputeCapabilityMinor, d.index), "device");
    check(cudaDeviceGetAttribute(&d.multiprocessors, cudaDevAttrMultiProcessorCount, d.index), "device");
    check(cudaDeviceGetAttribute(&d.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, d.index), "device");
    return d;
}

}  // namespace trainer::cuda
