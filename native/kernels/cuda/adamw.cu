// AdamW's step, of many tensors in a launch, and the float32 sum of gradients: a thread takes up to eight elements.
#include "device.h"
#include "elements.cuh"
#include "engine.h"

#include <cmath>
#include <limits>

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

// What a launch's parameters hold: 4 KiB.
constexpr int most_steps = 48;

struct Steps {
    int count;
    uint32_t first_block[most_steps];
    Step steps[most_steps];
};
static_assert(sizeof(Steps) <= 4096);

template <class T, int Count>
__global__ void __launch_bounds__(threads) adamw(const __grid_constant__ Steps all) {
    int which = 0;
#pragma unroll
    for (int stride = 32; stride > 0; stride /= 2)
        if (which + stride < all.count && all.first_block[which + stride] <= blockIdx.x) which += stride;
    const Step& p = all.steps[which];
    const int64_t piece = int64_t{blockIdx.x - all.first_block[which]} * threads + threadIdx.x, at = piece * Count;
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

bool goes_by_eight(const tn_adamw_args& args) {
    return takes_eight(args.count) && takes_eight(args.parameter) && takes_eight(args.first_moment) && takes_eight(args.second_moment) &&
           takes_eight(args.gradient) && takes_eight(args.bfloat16_copy);
}

Step step_of(const tn_adamw_args& args) {
    const double correction1 = 1 - std::pow(args.beta1, static_cast<double>(args.step));
    const double correction2 = 1 - std::pow(args.beta2, static_cast<double>(args.step));
    return {args.parameter, args.first_moment, args.second_moment, args.gradient, args.bfloat16_copy, args.count / (goes_by_eight(args) ? 8 : 1),
            static_cast<float>(1 - args.learning_rate * args.weight_decay), static_cast<float>(args.learning_rate / correction1),
            static_cast<float>(std::sqrt(correction2)), static_cast<float>(args.epsilon), static_cast<float>(args.beta2),
            static_cast<float>(1 - args.beta1), static_cast<float>(1 - args.beta2), static_cast<float>(args.gradient_scale)};
}

void require_on_device(const tn_adamw_args& args, const Device& device) {
    if (args.count == 0) return;
    require_on_device(args.parameter, device, "parameter");
    require_on_device(args.first_moment, device, "first_moment");
    require_on_device(args.second_moment, device, "second_moment");
    require_on_device(args.gradient, device, "gradient");
    if (args.bfloat16_copy != nullptr) require_on_device(args.bfloat16_copy, device, "bfloat16_copy");
    (void)launch_blocks(args.count, threads, "count");
}

}  // namespace

void adamw(const tn_adamw_args* args, int64_t count, void* stream) {
    const Device device = current_device();
    for (int64_t i = 0; i < count; ++i) require_on_device(args[i], device);
    for (tn_dtype dtype : {TN_FLOAT32, TN_BFLOAT16})
        for (bool eight : {true, false}) {
            Steps batch{};
            int64_t blocks = 0;
            const auto start = [&] {
                if (batch.count == 0) return;
                for_elements(dtype, eight, [&]([[maybe_unused]] auto type, [[maybe_unused]] auto size) {
                    launch(adamw<decltype(type), decltype(size)::value>, "AdamW", blocks, threads, 0, static_cast<cudaStream_t>(stream), batch);
                });
                batch.count = 0;
                blocks = 0;
            };
            for (int64_t i = 0; i < count; ++i) {
                if (args[i].count == 0 || args[i].gradient_dtype != dtype || goes_by_eight(args[i]) != eight) continue;
                const Step step = step_of(args[i]);
                const int64_t wanted = launch_blocks(step.pieces, threads, "count");
                if (batch.count == most_steps || blocks + wanted > std::numeric_limits<int32_t>::max()) start();
                batch.first_block[batch.count] = static_cast<uint32_t>(blocks);
                batch.steps[batch.count++] = step;
                blocks += wanted;
            }
            start();
        }
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
