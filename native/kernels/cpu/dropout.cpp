#include "ops.h"
#include "simd.h"

#include <algorithm>
#include <cmath>

namespace trainer::TN_ISA {

namespace {

constexpr int64_t block = 16384;  // elements of one task, a multiple of a Philox group
constexpr int64_t group = 4;      // elements that share one Philox counter

// Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3").
TN_INLINE void philox(uint64_t counter, uint64_t key, uint32_t (&x)[group]) {
    x[0] = static_cast<uint32_t>(counter);
    x[1] = static_cast<uint32_t>(counter >> 32);
    x[2] = x[3] = 0;
    uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
    for (int round = 0; round < 10; ++round) {
        const uint64_t a = uint64_t{0xD2511F53} * x[0], b = uint64_t{0xCD9E8D57} * x[2];
        const uint32_t y0 = static_cast<uint32_t>(b >> 32) ^ x[1] ^ k0, y2 = static_cast<uint32_t>(a >> 32) ^ x[3] ^ k1;
        x[1] = static_cast<uint32_t>(b);
        x[3] = static_cast<uint32_t>(a);
        x[0] = y0;
        x[2] = y2;
        k0 += 0x9E3779B9;
        k1 += 0xBB67AE85;
    }
}

template <class T>
TN_INLINE void dropout_typed(const tn_dropout_args& args, int64_t begin, int64_t end) {
    const T* x = static_cast<const T*>(args.x);
    T* y = static_cast<T*>(args.y);
    const uint64_t threshold = static_cast<uint64_t>(std::ldexp(static_cast<double>(args.probability), 32));
    const float scale = static_cast<float>(1 / (1 - static_cast<double>(args.probability)));
    for (int64_t i = begin; i < end; i += group) {
        uint32_t random[group];
        philox((args.offset + static_cast<uint64_t>(i)) / group, args.seed, random);
        for (int64_t j = 0; j < std::min(group, end - i); ++j)
            from_float(random[j] < threshold ? 0.0f : to_float(x[i + j]) * scale, y[i + j]);
    }
}

void dropout_block(const tn_dropout_args& args, int64_t begin, int64_t end) {
    args.dtype == TN_FLOAT32 ? dropout_typed<float>(args, begin, end) : dropout_typed<bfloat16>(args, begin, end);
}

}  // namespace

void dropout(const tn_dropout_args& args) {
#pragma omp parallel for schedule(static)
    for (int64_t begin = 0; begin < args.count; begin += block) dropout_block(args, begin, std::min(begin + block, args.count));
}

}  // namespace trainer::TN_ISA
