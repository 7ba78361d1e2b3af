// What the current device is.
#pragma once

namespace trainer::cuda {

struct Device {
    int index, major, minor, multiprocessors, shared_bytes;  // shared_bytes: what a thread block can have
};

// Refuses with a reason where there is no CUDA device or driver.
Device current_device();

// Refuses memory that kernels on this device can't reach.
void require_on_device(const void* data, const Device& device, const char* argument);

// Whether this build holds code that the current device runs.
bool has_image();

}  // namespace trainer::cuda
