// Cross-entropy of rows of logits: a thread block reads its row once for the loss, and once more, from the L2 cache where the row
// still lies there, for the gradient.
#include "device.h"
#include "elements.cuh"
#include "engine.h"

#include <cfloat>

namespace trainer::cuda {

namespace {

constexpr int threads = 1024, warps = threads / 32;

struct Parameters {
    void* logits;
    int64_t stride, vocabulary;
    const int64_t* labels;
    float *loss, scale;
    bool write_gradient;
};

// Of the logits seen so far, the largest, and the sum of e^(logit - largest).
struct Seen {
    float largest, sum;
};

// Of all threads, the same for each of them.
template <class T>
__device__ void combine(const Seen& seen, float& largest, double& sum) {
    __shared__ Seen of_warp[warps];
    const int lane = threadIdx.x % 32;
    float m = seen.largest;
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, lanes));
    float s = seen.sum * exponential(T{}, seen.largest - m);
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) s += __shfl_xor_sync(0xffffffffu, s, lanes);
    if (lane == 0) of_warp[threadIdx.x / 32] = {m, s};
    __syncthreads();
    static_assert(warps == 32, "a lane for each warp");
    const Seen mine = of_warp[lane];
    largest = mine.largest;
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, lanes));
    sum = static_cast<double>(mine.sum) * exponential(T{}, mine.largest - largest);
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
}

template <class T, int Count>
__global__ void __launch_bounds__(threads) cross_entropy(const __grid_constant__ Parameters p) {
    const int64_t row = blockIdx.x, begin = row * p.stride, label = p.labels[row];
    const bool ignored = label == TN_IGNORE_INDEX, known = label >= 0 && label < p.vocabulary;
    float x[Count], at_label[1] = {nanf("")};
    if (ignored) {
        if (threadIdx.x == 0) p.loss[row] = 0;
#pragma unroll
        for (int i = 0; i < Count; ++i) x[i] = 0;
        if (p.write_gradient)
            for (int64_t at = int64_t{threadIdx.x} * Count; at < p.vocabulary; at += threads * Count) store(T{}, p.logits, begin + at, x);
        return;
    }
    if (known) load(T{}, p.logits, begin + label, at_label);

    Seen seen{-FLT_MAX, 0};
#pragma unroll 2
    for (int64_t at = int64_t{threadIdx.x} * Count; at < p.vocabulary; at += threads * Count) {
        load(T{}, p.logits, begin + at, x);
        float largest = seen.largest;
#pragma unroll
        for (int i = 0; i < Count; ++i) largest = fmaxf(largest, x[i]);
        seen.sum *= exponential(T{}, seen.largest - largest);
        seen.largest = largest;
#pragma unroll
        for (int i = 0; i < Count; ++i) seen.sum += exponential(T{}, x[i] - largest);
    }
    float largest;
    double sum;
    combine<T>(seen, largest, sum);
    if (threadIdx.x == 0) p.loss[row] = static_cast<float>(log(sum) - (static_cast<double>(at_label[0]) - largest));
    if (!p.write_gradient) return;

    const float factor = known ? static_cast<float>(p.scale / sum) : nanf("");
    for (int64_t at = int64_t{threadIdx.x} * Count; at < p.vocabulary; at += threads * Count) {
        load(T{}, p.logits, begin + at, x);
#pragma unroll
        for (int i = 0; i < Count; ++i) {
            x[i] = exponential(T{}, x[i] - largest) * factor;
            if (at + i == label) x[i] -= p.scale;
        }
        store(T{}, p.logits, begin + at, x);
    }
}

}  // namespace

void cross_entropy(const tn_cross_entropy_args& args, void* stream) {
    const Device device = current_device();
    require_on_device(args.logits_CV, device, "logits_CV");
    require_on_device(args.labels_C, device, "labels_C");
    require_on_device(args.loss_C, device, "loss_C");
    const bool eight = takes_eight(args.vocabulary) && takes_eight(args.logits_CV) && takes_eight(args.logits_stride);
    const Parameters p{args.logits_CV, args.logits_stride, args.vocabulary, args.labels_C, args.loss_C, args.gradient_scale, args.write_gradient != 0};
    for_elements(args.dtype, eight, [&]([[maybe_unused]] auto type, [[maybe_unused]] auto count) {
        launch(cross_entropy<decltype(type), decltype(count)::value>, "cross-entropy", launch_blocks(args.rows, 1, "rows"), threads, 0,
               static_cast<cudaStream_t>(stream), p);
    });
}

}  // namespace trainer::cuda
