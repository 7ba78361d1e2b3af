// Attention over tensors on the device, its kernels chosen by the test, and the reference in float64.
#pragma once
#include "attention.h"
#include "device.h"
#include "harness.h"
#include "launch.h"

#include <algorithm>
#include <limits>
#include <memory>

using namespace trainer::cuda;

inline void cuda_ok(cudaError_t error) {
    if (error != cudaSuccess) fail(cudaGetErrorString(error));
}

// 16-bit elements on the host and on the device.
class Elements {
public:
    Elements(tn_dtype dtype, size_t count) : dtype_(dtype), host_(count, 0xffff) {
        cuda_ok(cudaMalloc(&device_, std::max<size_t>(2 * count, 16)));
    }
    Elements(const Elements&) = delete;
    ~Elements() { cudaFree(device_); }

    void fill_normal(std::mt19937_64& random, double deviation) {
        std::normal_distribution<double> normal(0, deviation);
        for (size_t i = 0; i < host_.size(); ++i) set(i, static_cast<float>(normal(random)));
    }
    void poison() { std::fill(host_.begin(), host_.end(), 0xffff); }
    void upload() { cuda_ok(cudaMemcpy(device_, host_.data(), 2 * host_.size(), cudaMemcpyHostToDevice)); }
    void download() { cuda_ok(cudaMemcpy(host_.data(), device_, 2 * host_.size(), cudaMemcpyDeviceToHost)); }

    void* device() const { return device_; }
    size_t size() const { return host_.size(); }
    const std::vector<uint16_t>& bits() const { return host_; }
    std::vector<double> values() const {
        std::vector<double> all(size());
        for (size_t i = 0; i < size(); ++i) all[i] = (*this)[i];
        return all;
    }

    double operator[](size_t i) const {
        const uint32_t h = host_[i];
        if (dtype_ == TN_BFLOAT16) {
            const uint32_t u = h << 16;
            float f;
            std::memcpy(&f, &u, 4);
            return f;
        }
        const int exponent = h >> 10 & 31, fraction = h & 1023;
        const double magnitude = exponent == 31  ? (fraction ? std::nan("") : std::numeric_limits<double>::infinity())
                                 : exponent == 0 ? std::ldexp(fraction, -24)
                                                 : std::ldexp(1024 + fraction, exponent - 25);
        return h >> 15 ? -magnitude : magnitude;
    }
    void set(size_t i, float x) {
        uint32_t u;
        std::memcpy(&u, &x, 4);
        if (std::isnan(x)) {
            host_[i] = 0x7fff;
        } else if (dtype_ == TN_BFLOAT16) {
            host_[i] = static_cast<uint16_t>((u + 0x7fff + (u >> 16 & 1)) >> 16);
        } else {
            // Normal numbers only, which is all that the tests draw; smaller ones become 0.
            const uint32_t rounded = u + 0xfff + (u >> 13 & 1);
            const int32_t exponent = static_cast<int32_t>(rounded >> 23 & 255) - 112;
            host_[i] = static_cast<uint16_t>(rounded >> 16 & 0x8000);
            if (exponent > 0) host_[i] = static_cast<uint16_t>(host_[i] | exponent << 10 | (rounded >> 13 & 1023));
        }
    }

private:
    tn_dtype dtype_;
    std::vector<uint16_t> host_;
    void* device_ = nullptr;
};

class Floats {
public:
    explicit Floats(size_t count) : host_(count) { cuda_ok(cudaMalloc(&device_, std::max<size_t>(4 * count, 16))); }
    Floats(const Floats&) = delete;
    ~Floats() { cudaFree(device_); }

    void poison() { cuda_ok(cudaMemset(device_, 0xff, 4 * host_.size())); }
    void download() { cuda_ok(cudaMemcpy(host_.data(), device_, 4 * host_.size(), cudaMemcpyDeviceToHost)); }
    float* device() const { return static_cast<float*>(device_); }
    const std::vector<float>& values() const { return host_; }

private:
    std::vector<float> host_;
    void* device_ = nullptr;
};

// What the library chooses where asked for determinism or for any order, and the portable kernels whatever it chooses, those in
// any order also with the shared memory of sm_80. Hopper's also with blocks of keys that no cluster shares, all of which fours share,
// half of which pairs share, and that share as is best.
enum class Kernels {
    deterministic, deterministic_alone, deterministic_fours, deterministic_mixed, any_order, any_order_alone, any_order_fours,
    any_order_mixed, any_order_as_is_best, portable, portable_any_order, portable_any_order_sm80
};
constexpr Kernels all_kernels[] = {Kernels::deterministic, Kernels::deterministic_alone, Kernels::deterministic_fours,
                                   Kernels::deterministic_mixed, Kernels::any_order, Kernels::any_order_alone, Kernels::any_order_fours,
                                   Kernels::any_order_mixed, Kernels::any_order_as_is_best, Kernels::portable, Kernels::portable_any_order,
                                   Kernels::portable_any_order_sm80};

// Whether dq, too, has the same bits in every run.
inline bool fixed_order(Kernels kernels) { return kernels <= Kernels::deterministic_mixed || kernels == Kernels::portable; }

struct Case {
    int32_t q_heads, kv_heads, head_dim;
    std::vector<int32_t> q_lengths, k_lengths;
    bool causal;
    int32_t window = -1;
    int64_t token_gap = 0;  // elements between tokens beyond the heads themselves
    double deviation = 1;
    tn_dtype dtype = TN_BFLOAT16;
};

struct Reference;

class DeviceAttention {
public:
    explicit DeviceAttention(const Case& c, uint64_t seed = 1);
    ~DeviceAttention();

    tn_attention_shape shape{};
    Elements q, k, v, dout, out, dq, dk, dv;
    Floats lse, scratch;

    void upload();
    void poison();  // outputs and scratch become NaN
    void start(Kernels kernels, cudaStream_t stream = nullptr);
    void run(Kernels kernels) {
        poison();
        start(kernels);
        cuda_ok(cudaDeviceSynchronize());
        download();
    }
    void download();
    std::vector<uint16_t> bits(bool with_dq = true) const;

    // Runs and holds every result against the definition in the header, in float64: each element within what the roundings on
    // its way may add up to, and each tensor within twice the error of attention by matrix products in the same type.
    void check(Kernels kernels);

    tn_attention_forward_args forward_args() const;
    tn_attention_backward_args backward_args(bool deterministic = true) const;
    int64_t q_stride() const { return q_stride_; }
    int64_t k_stride() const { return k_stride_; }
    const std::vector<int32_t>& q_boundaries() const { return cu_q_; }

private:
    Case c_;
    std::vector<int32_t> cu_q_, cu_k_;
    int64_t q_stride_, k_stride_;
    std::unique_ptr<Reference> reference_;
};
