// AdamW's step and the float32 sum of gradients: a thread takes up to eight elements.
#include "device.h"
#include "elements.cuh"
#include "engine.h"

#include <cmath>

namespace trainer::cuda {

namespace {

constexpr int threads = 256;

struct Step {
    float *parameter, *first, *second;
    const void* gradient;
    void* copy;
    int64_t pieces;
    float keep, step_size, root_correction2, epsilon, beta2, new1, new2, scale;
};

template <class T, int Count>
__global__ void __launch_bounds__(threads) adamw(const __grid_constant__ Step p) {
    const int64_t piece = int64_t{blockIdx.x} * threads + threadIdx.x, at = piece * Count;
    if (piece >= p.pieces) return;
    float gradient[Count], first[Count], second[Count], parameter[Count];
    load(T{}, p.gradient, at, gradient);
    load(Fp32{}, p.first, at, first);
    load(Fp32{}, p.second, at, second);
    load(Fp32{}, p.parameter, at, parameter);
#pragma unroll
    for (int i = 0; i < Count; ++i) {
        const float g = gradient[i] * p.scale;
        first[i] += p.new1 * (g - first[i]);
        second[i] = p.beta2 * second[i] + p.new2 * g * g;
        const float denominator = sqrtf(second[i]) / p.root_correction2 + p.epsilon;
        parameter[i] = parameter[i] * p.keep - p.step_size * (first[i] / denominator);
    }
    store(Fp32{}, p.first, at, first);
    store(Fp32{}, p.second, at, second);
    store(Fp32{}, p.parameter, at, parameter);
    if (p.copy) store(Bf16{}, p.copy, at, parameter);
}

struct Sum {
    float* sum;
    const void* addend;
    int64_t pieces;
};

template <class T, int Count>
__global__ void __launch_bounds__(threads) add(const __grid_constant__ Sum p) {
    const int64_t piece = int64_t{blockIdx.x} * threads + threadIdx.x, at = piece * Count;
    if (piece >= p.pieces) return;
    float sum[Count], addend[Count];
    load(Fp32{}, p.sum, at, sum);
    load(T{}, p.addend, at, addend);
#pragma unroll
    for (int i = 0; i < Count; ++i) sum[i] += addend[i];
    store(Fp32{}, p.sum, at, sum);
}

}  // namespace

void adamw(const tn_adamw_args& args, void* stream) {
    if (args.count == 0) return;
    const Device device = current_device();
    require_on_device(args.parameter, device, "parameter");
    require_on_device(args.first_moment, device, "first_moment");
    require_on_device(args.second_moment, device, "second_moment");
    require_on_device(args.gradient, device, "gradient");
    if (args.bfloat16_copy != nullptr) require_on_device(args.bfloat16_copy, device, "bfloat16_copy");
    const bool eight = takes_eight(args.count) && takes_eight(args.parameter) && takes_eight(args.first_moment) && takes_eight(args.second_moment) &&
                       takes_eight(args.gradient) && takes_eight(args.bfloat16_copy);
    const double correction1 = 1 - std::pow(args.beta1, static_cast<double>(args.step));
    const double correction2 = 1 - std::pow(args.beta2, static_cast<double>(args.step));
    const Step p{args.parameter, args.first_moment, args.second_moment, args.gradient, args.bfloat16_copy, args.count / (eight ? 8 : 1),
                 static_cast<float>(1 - args.learning_rate * args.weight_decay), static_cast<float>(args.learning_rate / correction1),
                 static_cast<float>(std::sqrt(correction2)), static_cast<float>(args.epsilon), static_cast<float>(args.beta2),
                 static_cast<float>(1 - args.beta1), static_cast<float>(1 - args.beta2), static_cast<float>(args.gradient_scale)};
    for_elements(args.gradient_dtype, eight, [&]([[maybe_unused]] auto type, [[maybe_unused]] auto count) {
        launch(adamw<decltype(type), decltype(count)::value>, "AdamW", launch_blocks(p.pieces, threads, "count"), threads, 0,
               static_cast<cudaStream_t>(stream), p);
    });
}

void accumulate(tn_dtype addend_dtype, int64_t count, float* sum, const void* addend, void* stream) {
    if (count == 0) return;
    const Device device = current_device();
    require_on_device(sum, device, "sum");
    require_on_device(addend, device, "addend");
    const bool eight = takes_eight(count) && takes_eight(sum) && takes_eight(addend);
    const Sum p{sum, addend, count / (eight ? 8 : 1)};
    for_elements(addend_dtype, eight, [&]([[maybe_unused]] auto type, [[maybe_unused]] auto size) {
        launch(add<decltype(type), decltype(size)::value>, "sum of gradients", launch_blocks(p.pieces, threads, "count"), threads, 0,
               static_cast<cudaStream_t>(stream), p);
    });
}

}  // namespace trainer::cuda
