// The border between C++ exceptions and statuses.
#pragma once

#include "trainer_torch.h"

#include <ATen/core/Tensor.h>

#include <atomic>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <vector>

namespace tt {

inline at::Tensor& unwrap(tt_tensor tensor) {
    return *reinterpret_cast<at::Tensor*>(tensor);
}

inline tt_tensor wrap(at::Tensor tensor) {
    return reinterpret_cast<tt_tensor>(new at::Tensor(std::move(tensor)));
}

// NULL for an undefined tensor, and back.
inline tt_tensor wrap_optional(at::Tensor tensor) {
    return tensor.defined() ? wrap(std::move(tensor)) : nullptr;
}

inline at::Tensor unwrap_optional(tt_tensor tensor) {
    return tensor ? unwrap(tensor) : at::Tensor();
}

std::vector<at::Tensor> unwrap_all(const tt_tensor* tensors, int32_t count);
int64_t pack_device(c10::Device device);
c10::Device unpack_device(int64_t device);

// A managed exception on its way through libtorch. Copies share the handle; the last one frees it if nobody took it.
class ManagedError : public std::runtime_error {
public:
    ManagedError(const std::string& function, int64_t handle, void (*release)(int64_t));
    int64_t take() const { return handle_->exchange(0); }

private:
    std::shared_ptr<std::atomic<int64_t>> handle_;
};

// Turns the exception being handled into the thread's message: "op: reason (inputs: float32[2, 3], int64[4])".
int32_t fail(const char* op, const std::vector<tt_tensor>& inputs);

template <class Body>
int32_t guard(const char* op, std::initializer_list<tt_tensor> inputs, Body body) {
    try {
        body();
        return TT_OK;
    } catch (...) {
        return fail(op, inputs);
    }
}

template <class Body>
int32_t guard(const char* op, const tt_tensor* inputs, int32_t count, Body body) {
    try {
        body();
        return TT_OK;
    } catch (...) {
        return fail(op, std::vector<tt_tensor>(inputs, inputs + count));
    }
}

} // namespace tt
