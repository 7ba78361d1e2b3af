#include "guard.h"

#include <c10/util/Exception.h>

#include <sstream>

namespace tt {
namespace {

thread_local std::string last_error;
thread_local int64_t managed_error = 0;

const char* dtype_name(at::ScalarType dtype) {
    switch (dtype) {
        case at::kByte: return "uint8";
        case at::kChar: return "int8";
        case at::kShort: return "int16";
        case at::kInt: return "int32";
        case at::kLong: return "int64";
        case at::kHalf: return "float16";
        case at::kFloat: return "float32";
        case at::kDouble: return "float64";
        case at::kBool: return "bool";
        case at::kBFloat16: return "bfloat16";
        default: return c10::toString(dtype);
    }
}

void describe(std::ostream& out, tt_tensor handle) {
    if (handle == nullptr || !unwrap(handle).defined()) {
        out << "none";
        return;
    }
    const at::Tensor& tensor = unwrap(handle);
    out << dtype_name(tensor.scalar_type()) << tensor.sizes();
    if (!tensor.device().is_cpu()) {
        out << " on " << tensor.device();
    }
}

// The first paragraph: after it libtorch lists every registered kernel.
std::string first_paragraph(const std::string& reason) {
    const std::string paragraph = reason.substr(0, reason.find("\n\n"));
    return paragraph.substr(0, paragraph.find_last_not_of(" \n") + 1);
}

void remember(const char* op, const std::string& reason, const std::vector<tt_tensor>& inputs) {
    std::ostringstream out;
    out << op << ": " << first_paragraph(reason);
    if (!inputs.empty()) {
        out << " (inputs: ";
        for (size_t i = 0; i < inputs.size(); ++i) {
            out << (i ? ", " : "");
            describe(out, inputs[i]);
        }
        out << ")";
    }
    last_error = out.str();
}

} // namespace

ManagedError::ManagedError(const std::string& function, int64_t handle, void (*release)(int64_t))
    : std::runtime_error("an exception was thrown in the backward of " + function),
      handle_(new std::atomic<int64_t>(handle), [release](std::atomic<int64_t>* owned) {
          if (const int64_t left = owned->exchange(0)) {
              release(left);
          }
          delete owned;
      }) {}

int32_t fail(const char* op, const std::vector<tt_tensor>& inputs) {
    managed_error = 0;
    try {
        throw;
    } catch (const ManagedError& error) {
        remember(op, error.what(), inputs);
        managed_error = error.take();
    } catch (const c10::Error& error) {
        remember(op, error.what_without_backtrace(), inputs);
    } catch (const std::bad_alloc&) {
        remember(op, "out of memory", inputs);
    } catch (const std::exception& error) {
        remember(op, error.what(), inputs);
    } catch (...) {
        remember(op, "an unknown C++ exception", inputs);
    }
    return TT_ERROR;
}

std::vector<at::Tensor> unwrap_all(const tt_tensor* tensors, int32_t count) {
    std::vector<at::Tensor> result;
    result.reserve(count);
    for (int32_t i = 0; i < count; ++i) {
        result.push_back(unwrap_optional(tensors[i]));
    }
    return result;
}

int64_t pack_device(c10::Device device) {
    return static_cast<int64_t>(device.type()) << 8 | static_cast<uint8_t>(device.index());
}

c10::Device unpack_device(int64_t device) {
    return c10::Device(static_cast<c10::DeviceType>(device >> 8), static_cast<int8_t>(device & 0xff));
}

} // namespace tt

const char* tt_last_error(void) {
    return tt::last_error.c_str();
}

int64_t tt_take_managed_error(void) {
    return std::exchange(tt::managed_error, 0);
}
