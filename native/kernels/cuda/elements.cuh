// Elements of float32 or bfloat16 as floats, eight at a time where the layout allows, for kernels that go row by row.
#pragma once
#include "launch.h"
#include "ptx.cuh"

#include <type_traits>

namespace trainer::cuda {

struct Fp32 {};

__device__ inline void load(Fp32, const void* from, int64_t at, float (&x)[1]) { x[0] = static_cast<const float*>(from)[at]; }
__device__ inline void load(Bf16, const void* from, int64_t at, float (&x)[1]) {
    x[0] = unpack<Bf16>(static_cast<const uint16_t*>(from)[at]).x;
}
__device__ inline void load(Fp32, const void* from, int64_t at, float (&x)[8]) {
    const float4* pieces = reinterpret_cast<const float4*>(static_cast<const float*>(from) + at);
    const float4 low = pieces[0], high = pieces[1];
    x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w, x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
}
__device__ inline void load(Bf16, const void* from, int64_t at, float (&x)[8]) {
    const uint4 piece = *reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(from) + at);
    const uint32_t twos[4] = {piece.x, piece.y, piece.z, piece.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const float2 two = unpack<Bf16>(twos[i]);
        x[2 * i] = two.x, x[2 * i + 1] = two.y;
    }
}

__device__ inline void store(Fp32, void* to, int64_t at, const float (&x)[1]) { static_cast<float*>(to)[at] = x[0]; }
__device__ inline void store(Bf16, void* to, int64_t at, const float (&x)[1]) {
    static_cast<uint16_t*>(to)[at] = static_cast<uint16_t>(pack<Bf16>(x[0], 0));
}
__device__ inline void store(Fp32, void* to, int64_t at, const float (&x)[8]) {
    float4* pieces = reinterpret_cast<float4*>(static_cast<float*>(to) + at);
    pieces[0] = make_float4(x[0], x[1], x[2], x[3]);
    pieces[1] = make_float4(x[4], x[5], x[6], x[7]);
}
__device__ inline void store(Bf16, void* to, int64_t at, const float (&x)[8]) {
    *reinterpret_cast<uint4*>(static_cast<uint16_t*>(to) + at) =
        uint4{pack<Bf16>(x[0], x[1]), pack<Bf16>(x[2], x[3]), pack<Bf16>(x[4], x[5]), pack<Bf16>(x[6], x[7])};
}

// e^x, to the precision that the element type can show.
__device__ inline float exponential(Fp32, float x) { return expf(x); }
__device__ inline float exponential(Bf16, float x) { return exp2_fast(x * 1.4426950408889634f); }

inline bool takes_eight(const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; }
inline bool takes_eight(int64_t count) { return count % 8 == 0; }

// start(element type, how many elements a thread takes at a time).
template <class Start>
void for_elements(tn_dtype dtype, bool eight, const Start& start) {
    const auto of_type = [&](auto type) {
        if (eight) start(type, std::integral_constant<int, 8>{});
        else start(type, std::integral_constant<int, 1>{});
    };
    if (dtype == TN_FLOAT32) of_type(Fp32{});
    else of_type(Bf16{});
}

}  // namespace trainer::cuda
