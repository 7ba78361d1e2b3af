#include "device.h"

#include "engine.h"
#include "launch.h"

#include <cstring>

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

void require_on_device(const void* data, const Device& device, const char* argument) {
    cudaPointerAttributes attributes{};
    check(cudaPointerGetAttributes(&attributes, data), argument);
    if (attributes.type != cudaMemoryTypeDevice && attributes.type != cudaMemoryTypeManaged) refuse(argument, "is not device memory");
    if (attributes.device != device.index)
        refuse(argument, "lies on device " + std::to_string(attributes.device) + ", but device " + std::to_string(device.index) +
                             " is current");
}

namespace {

// Cut where it is too long; what is left of the target is zero already.
template <size_t Size>
void copy_text(char (&target)[Size], const char* text) {
    std::memcpy(target, text, strnlen(text, Size - 1));
}

}  // namespace

void describe(tn_cuda_info& info) {
    info.built = 1;
    info.runtime_version = CUDART_VERSION;
    // 0 without a driver, and then nothing else can be asked.
    cudaError_t error = cudaDriverGetVersion(&info.driver_version);
    if (error == cudaSuccess) error = cudaGetDeviceCount(&info.devices);
    cudaDeviceProp properties{};
    int device = 0;
    if (error == cudaSuccess) error = cudaGetDevice(&device);
    if (error == cudaSuccess) error = cudaGetDeviceProperties(&properties, device);
    (void)cudaGetLastError();
    if (error != cudaSuccess) {
        copy_text(info.problem, cudaGetErrorString(error));
        return;
    }
    info.major = properties.major;
    info.minor = properties.minor;
    info.multiprocessors = properties.multiProcessorCount;
    info.memory_bytes = static_cast<int64_t>(properties.totalGlobalMem);
    copy_text(info.name, properties.name);
    info.has_image = has_image();
}

}  // namespace trainer::cuda
