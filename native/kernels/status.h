// How calls end: a refusal is thrown, guard() turns every exception into a status at the C boundary.
#pragma once
#include "trainer_native.h"

#include <cstdint>
#include <new>
#include <stdexcept>
#include <string>

namespace trainer {

struct Refusal : std::runtime_error {
    tn_status status;
    Refusal(tn_status s, const std::string& message) : std::runtime_error(message), status(s) {}
};

[[noreturn]] void refuse(const std::string& argument, const std::string& rule);

inline void require(bool holds, const char* argument, const char* rule) {
    if (!holds) refuse(argument, rule);
}

void require_struct_size(uint32_t actual, size_t expected);
// For operations that only the CPU engine has: refuses any other device.
void require_device(tn_device device);
// For operations that both engines have: whether the CUDA engine is asked for. Refuses a device whose engine is not in this build.
bool on_cuda(tn_device device);
void require_dtype(tn_dtype dtype, const char* argument);
// tensor [tokens, heads, width]: data present unless it is empty, rows that do not overlap.
void require_tensor(const tn_tensor& t, int64_t tokens, int64_t heads, int64_t width, const char* argument);

void set_last_error(const char* message) noexcept;

template <class Body>
tn_status guard(Body&& body) noexcept {
    try {
        body();
        return TN_OK;
    } catch (const Refusal& e) {
        set_last_error(e.what());
        return e.status;
    } catch (const std::bad_alloc&) {
        set_last_error("out of host memory for the working tiles of this call");
        return TN_OUT_OF_MEMORY;
    } catch (const std::exception& e) {
        set_last_error(e.what());
        return TN_INTERNAL;
    } catch (...) {
        set_last_error("an exception that is not a std::exception");
        return TN_INTERNAL;
    }
}

}  // namespace trainer
