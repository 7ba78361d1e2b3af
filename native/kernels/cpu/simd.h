// Eight float lanes in GCC vector extensions: one AVX2 register where the sources are compiled for it, whatever the compiler
// makes of them elsewhere. Vectors are passed only to functions that are always inlined.
#pragma once
#include <cstdint>
#include <cstring>

#define TN_INLINE inline __attribute__((always_inline))

namespace trainer::TN_ISA {

constexpr int lanes = 8;

using f32x8 = float __attribute__((vector_size(32)));
using i32x8 = int32_t __attribute__((vector_size(32)));
using u32x8 = uint32_t __attribute__((vector_size(32)));
using u16x8 = uint16_t __attribute__((vector_size(16)));

struct bfloat16 {
    uint16_t bits;
};

template <class To, class From>
TN_INLINE To bits_of(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

TN_INLINE f32x8 splat(float x) { return f32x8{x, x, x, x, x, x, x, x}; }

TN_INLINE float to_float(float x) { return x; }
TN_INLINE float to_float(bfloat16 x) { return bits_of<float>(static_cast<uint32_t>(x.bits) << 16); }

// Round to nearest even; a NaN stays a NaN.
TN_INLINE void from_float(float x, float& to) { to = x; }
TN_INLINE void from_float(float x, bfloat16& to) {
    const uint32_t u = bits_of<uint32_t>(x);
    to.bits = x != x ? 0x7fc0 : static_cast<uint16_t>((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

TN_INLINE f32x8 load(const float* p) {
    f32x8 v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
TN_INLINE f32x8 load(const bfloat16* p) {
    u16x8 h;
    std::memcpy(&h, p, sizeof h);
    return bits_of<f32x8>(__builtin_convertvector(h, u32x8) << 16);
}

TN_INLINE void store(float* p, f32x8 v) { std::memcpy(p, &v, sizeof v); }
TN_INLINE void store(bfloat16* p, f32x8 v) {
    const u32x8 u = bits_of<u32x8>(v);
    const u32x8 rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    const u32x8 nan = bits_of<u32x8>(v != v);
    const u16x8 h = __builtin_convertvector((nan & 0x7fc0) | (~nan & rounded), u16x8);
    std::memcpy(p, &h, sizeof h);
}

// The first `count` < 8 elements; other lanes are zero.
template <class T>
TN_INLINE f32x8 load_part(const T* p, int64_t count) {
    T part[lanes] = {};
    std::memcpy(part, p, static_cast<size_t>(count) * sizeof(T));
    return load(part);
}
template <class T>
TN_INLINE void store_part(T* p, f32x8 v, int64_t count) {
    T part[lanes];
    store(part, v);
    std::memcpy(p, part, static_cast<size_t>(count) * sizeof(T));
}

// Calls body(i, load, store) for i = 0, 8, 16 ... < n, where load(p) and store(p, v) touch only elements below n.
template <class Body>
TN_INLINE void for_lanes(int64_t n, Body&& body) {
    int64_t i = 0;
    for (; i + lanes <= n; i += lanes)
        body(i, [](const auto* p) __attribute__((always_inline)) { return load(p); },
             [](auto* p, f32x8 v) __attribute__((always_inline)) { store(p, v); });
    if (i < n) {
        const int64_t rest = n - i;
        body(i, [rest](const auto* p) __attribute__((always_inline)) { return load_part(p, rest); },
             [rest](auto* p, f32x8 v) __attribute__((always_inline)) { store_part(p, v, rest); });
    }
}

TN_INLINE f32x8 select(i32x8 mask, f32x8 yes, f32x8 no) { return mask ? yes : no; }
TN_INLINE f32x8 maximum(f32x8 a, f32x8 b) { return select(a > b, a, b); }

// Lanes are added in one fixed order.
TN_INLINE float sum_lanes(f32x8 v) { return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7])); }
TN_INLINE float maximum_lane(f32x8 v) {
    float m = v[0];
    for (int i = 1; i < lanes; ++i) m = v[i] > m ? v[i] : m;
    return m;
}

// e^x to about 2 units in the last place; 0 below -87.3 (no subnormals), e^88.3 above 88.3, NaN for NaN.
TN_INLINE f32x8 exponential(f32x8 x) {
    const f32x8 low = splat(-87.3f), high = splat(88.3f);
    const f32x8 clamped = select(x < low, low, select(x > high, high, x));
    const f32x8 magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
    const f32x8 shifted = clamped * 1.44269504f + magic;
    const f32x8 n = shifted - magic;
    const f32x8 r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
    f32x8 p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    const f32x8 result = bits_of<f32x8>(bits_of<i32x8>(p) + (bits_of<i32x8>(shifted) << 23));
    return select(x < low, splat(0), result);
}

TN_INLINE f32x8 sigmoid(f32x8 x) { return 1.0f / (1.0f + exponential(-x)); }

}  // namespace trainer::TN_ISA
