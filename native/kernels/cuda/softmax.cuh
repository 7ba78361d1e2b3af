// The online softmax on accumulators of 16 rows: a lane holds rows lane/4 and lane/4 + 8, columns 8n + 2(lane%4) + {0, 1}.
#pragma once
#include "ptx.cuh"
#include "tiles.h"

#include <cmath>

namespace trainer::cuda {

// Scores outside visible, which is given for the lane's two rows, become -infinity. first is what column 0 counts as: a key,
// or a query where scores are held transposed.
template <int Blocks>
__device__ inline void mask_scores(float (&scores)[Blocks][4], const Visible (&visible)[2], int first, int lane) {
    const int column = first + 2 * (lane % 4);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int from = visible[half].from - column, end = visible[half].end - column;
#pragma unroll
        for (int n = 0; n < Blocks; ++n)
#pragma unroll
            for (int e = 0; e < 2; ++e)
                if (8 * n + e < from || 8 * n + e >= end) scores[n][2 * half + e] = -INFINITY;
    }
}

// State of the two rows of a lane. sum covers only the lane's own columns until total() adds up the four lanes of a row.
struct Rows {
    float max[2] = {-INFINITY, -INFINITY};
    float sum[2] = {0, 0};

    // Turns scores into exp2(scale_log2 * (score - maximum so far)) and answers what older results have to be multiplied by.
    template <int Blocks>
    __device__ void absorb(float (&scores)[Blocks][4], float scale_log2, float (&shrink)[2]) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float largest = max[half];
#pragma unroll
            for (int n = 0; n < Blocks; ++n) largest = fmaxf(largest, fmaxf(scores[n][2 * half], scores[n][2 * half + 1]));
            largest = quad_max(largest);
            const float origin = largest == -INFINITY ? 0.f : largest * scale_log2;
            shrink[half] = exp2_fast(fmaf(max[half], scale_log2, -origin));
            max[half] = largest;
            float added = 0;
#pragma unroll
            for (int n = 0; n < Blocks; ++n)
#pragma unroll
                for (int e = 2 * half; e < 2 * half + 2; ++e) {
                    scores[n][e] = exp2_fast(fmaf(scores[n][e], scale_log2, -origin));
                    added += scores[n][e];
                }
            sum[half] = fmaf(sum[half], shrink[half], added);
        }
    }

    // 1 / sum of each row, 0 where the row saw nothing; lse is the natural logarithm of the sum of exp(scale * score).
    __device__ void finish(float scale, float (&factor)[2], float (&lse)[2]) const {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const float total = quad_sum(sum[half]);
            factor[half] = total == 0 ? 0.f : __fdividef(1.f, total);
            lse[half] = total == 0 ? -INFINITY : fmaf(max[half], scale, __logf(total));
        }
    }
};

// What the exponent of 2 of a backward pass adds to a scaled score; -infinity, hence probability 0, for a row that saw nothing.
__device__ inline float minus_lse_log2(float lse) { return lse == -INFINITY ? -INFINITY : lse * -1.4426950408889634f; }

template <int Blocks>
__device__ inline void scale_rows(float (&d)[Blocks][4], const float (&factor)[2]) {
#pragma unroll
    for (int n = 0; n < Blocks; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) d[n][e] *= factor[e / 2];
}

// Accumulator columns [16 step, 16 step + 16) as operand A.
template <class T, int Blocks>
__device__ inline void pack_a(uint32_t (&a)[4], const float (&d)[Blocks][4], int step) {
#pragma unroll
    for (int e = 0; e < 4; ++e) a[e] = pack<T>(d[2 * step + e / 2][e % 2 * 2], d[2 * step + e / 2][e % 2 * 2 + 1]);
}

}  // namespace trainer::cuda
