// A test is a sentence and a function that throws what went wrong.
#pragma once
#include "trainer_native.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#ifdef TN_TEST_CUDA
#include <cuda_runtime.h>
#endif

struct Test {
    const char* sentence;
    std::function<void()> body;
};
std::vector<Test>& tests();

struct Registration {
    Registration(const char* sentence, std::function<void()> body) { tests().push_back({sentence, std::move(body)}); }
};
#define TEST_AT(sentence, line)                                                  \
    static void test_at_##line();                                                \
    static const Registration registration_##line(sentence, test_at_##line);     \
    static void test_at_##line()
#define TEST_EXPANDED(sentence, line) TEST_AT(sentence, line)
#define TEST(sentence) TEST_EXPANDED(sentence, __LINE__)

[[noreturn]] inline void fail(const std::string& what) { throw std::runtime_error(what); }
inline void expect(bool holds, const std::string& what) {
    if (!holds) fail(what);
}
inline void ok(tn_status status) {
    if (status != TN_OK) fail("status " + std::to_string(status) + ": " + tn_last_error());
}
// The call must be refused with this status, and the message must begin with the argument's name.
inline void refused(tn_status status, tn_status expected, const std::string& argument) {
    expect(status == expected, argument + ": status " + std::to_string(status) + " instead of " + std::to_string(expected));
    const std::string message = tn_last_error();
    expect(message.rfind(argument + ":", 0) == 0, "the message \"" + message + "\" does not begin with " + argument);
}

// Values stored as float32 or bfloat16, readable as double; the storage that kernels are given.
class Values {
public:
    Values(tn_dtype dtype, size_t count) : dtype_(dtype), bytes_(count * (dtype == TN_FLOAT32 ? 4 : 2), 0xff) {}
    static Values normal(tn_dtype dtype, size_t count, std::mt19937_64& random, double deviation = 1) {
        Values v(dtype, count);
        std::normal_distribution<double> normal(0, deviation);
        for (size_t i = 0; i < count; ++i) v.set(i, normal(random));
        return v;
    }
    void* data() { return bytes_.data(); }
    size_t size() const { return bytes_.size() / (dtype_ == TN_FLOAT32 ? 4 : 2); }
    tn_dtype dtype() const { return dtype_; }
    const std::vector<uint8_t>& bytes() const { return bytes_; }
    double operator[](size_t i) const {
        float f;
        if (dtype_ == TN_FLOAT32) {
            std::memcpy(&f, &bytes_[4 * i], 4);
        } else {
            const uint32_t u = static_cast<uint32_t>(bytes_[2 * i] | bytes_[2 * i + 1] << 8) << 16;
            std::memcpy(&f, &u, 4);
        }
        return f;
    }
    void set(size_t i, double x) {
        const float f = static_cast<float>(x);
        uint32_t u;
        std::memcpy(&u, &f, 4);
        if (dtype_ == TN_FLOAT32) {
            std::memcpy(&bytes_[4 * i], &u, 4);
        } else {
            const uint32_t h = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
            bytes_[2 * i] = static_cast<uint8_t>(h);
            bytes_[2 * i + 1] = static_cast<uint8_t>(h >> 8);
        }
    }

private:
    tn_dtype dtype_;
    std::vector<uint8_t> bytes_;
};

// Host memory as the library under test is to have it: for tests that are built for the CUDA engine, a copy on the device that
// comes back when the last who lent it is done. Lending the same memory twice is lending it once.
#ifdef TN_TEST_CUDA
constexpr tn_device tested_device = TN_DEVICE_CUDA;

class Lent {
public:
    Lent(void* host, size_t bytes) {
        static std::map<void*, std::weak_ptr<Copy>> lent;
        copy_ = lent[host].lock();
        if (!copy_) lent[host] = copy_ = std::make_shared<Copy>(host, bytes);
    }
    template <class T>
    T* as() const {
        return static_cast<T*>(copy_->device);
    }

private:
    struct Copy {
        Copy(void* h, size_t count) : host(h), bytes(count) {
            if (cudaMalloc(&device, bytes + 16) != cudaSuccess || cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice) != cudaSuccess)
                fail("memory could not be lent to the device");
        }
        // A copy that fails leaves the host's poison, which no test takes for a result.
        ~Copy() {
            cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost);
            cudaFree(device);
        }
        void* host;
        size_t bytes;
        void* device = nullptr;
    };
    std::shared_ptr<Copy> copy_;
};
#else
constexpr tn_device tested_device = TN_DEVICE_CPU;

class Lent {
public:
    Lent(void* host, size_t) : host_(host) {}
    template <class T>
    T* as() const {
        return static_cast<T*>(host_);
    }

private:
    void* host_;
};
#endif

inline Lent lend(Values& values) { return {values.data(), values.bytes().size()}; }

// Unwritten storage is all ones: NaN in both types, so a missing write never passes.
// float32: `epsilons` units of 2^-24 of the largest reference element, for the sums; at least of 1, the order of the inputs,
// because differences of them may cancel. bfloat16: one rounding more, 2^-8 of each.
inline void close(const Values& actual, const std::vector<double>& expected, const std::string& name, double epsilons = 64) {
    double largest = 0;
    for (double e : expected) largest = std::max(largest, std::isfinite(e) ? std::fabs(e) : 0);
    for (size_t i = 0; i < expected.size(); ++i) {
        const double e = expected[i], rounding = actual.dtype() == TN_BFLOAT16 ? std::fabs(e) / 256 : 0;
        if (std::isinf(e) && actual[i] == e) continue;
        if (!(std::fabs(actual[i] - e) <= rounding + epsilons * std::ldexp(std::max(largest, 1.0), -24))) {
            std::ostringstream text;
            text << name << "[" << i << "] is " << actual[i] << ", expected " << e << " (largest " << largest << ")";
            fail(text.str());
        }
    }
}

// body(outputs) must leave the same bits in its results for every number of threads.
template <class Run>
void same_bits_for_any_thread_count(Run run) {
    ok(tn_set_threads(1));
    const auto one = run();
    for (int32_t threads : {2, 3, 7}) {
        ok(tn_set_threads(threads));
        if (run() != one) fail("other bits with " + std::to_string(threads) + " threads");
    }
    ok(tn_set_threads(2));
}
