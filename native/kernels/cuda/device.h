// What the current device is.
#pragma once

namespace trainer::cuda {

struct Device {
    int index, major, minor, multiprocessors, shared_bytes;  // shared_bytes: what a thread block can have
};

// Refuses with a reason where there is no CUDA device or driver.
Device current_device();

// Whether this build holds code that the current device runs.
bool has_image();

}  // namespace trainer::cuda
