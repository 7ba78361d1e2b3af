// What the Hopper backward kernels share, whether their thread blocks own keys or queries.
#pragma once
#include "attention.h"
#include "hopper.cuh"
#include "softmax.cuh"
#include "tensor_map.h"

namespace trainer::cuda {

struct BackwardParameters {
    CUtensorMap q, k, v, dout;
    Attention attention;
    Matrix dq, dk, dv;
    const float* lse;
    RowFloats delta;
    Plan plan;
    Tiles tiles;
};

// For tiles of so many queries and keys; without plan and table of tiles.
inline BackwardParameters backward_parameters(const tn_attention_backward_args& args, const RowFloats& delta, int32_t rows, int32_t keys) {
    const tn_attention_shape& s = args.shape;
    return {tensor_map(args.q_TNH, s.dtype, s.q_tokens, s.q_heads, s.head_dim, rows),
            tensor_map(args.k_TMH, s.dtype, s.k_tokens, s.kv_heads, s.head_dim, keys),
            tensor_map(args.v_TMH, s.dtype, s.k_tokens, s.kv_heads, s.head_dim, keys),
            tensor_map(args.dout_TNH, s.dtype, s.q_tokens, s.q_heads, s.head_dim, rows),
            attention(s), matrix(args.dq_TNH), matrix(args.dk_TMH), matrix(args.dv_TMH), args.lse_NT, delta, {}, {}};
}

// Their descriptions, which the first copies would wait for.
__device__ inline void prefetch(const BackwardParameters& p) {
    for (const CUtensorMap* map : {&p.k, &p.v, &p.q, &p.dout}) prefetch(*map);
}

// All pages of `rows` rows of a tile whose pages are `tile_rows` rows apart.
template <int Dim>
__device__ inline void copy_pages(uint32_t to, int tile_rows, const CUtensorMap& map, uint32_t barrier, int head, int token) {
    for (int page = 0; page < pages(Dim); ++page) copy_box(to + page * tile_rows * 128, map, barrier, 64 * page, head, token);
}

// Zeros in rows [valid_rows, Rows) of a tile: what the copy engine brought from the next sequence must not meet a zero
// probability as a NaN. All consumers do it together; publish_shared and a barrier follow.
template <int Rows, int Dim, int Consumers>
__device__ inline void clear_rows(uint32_t tile, int valid_rows) {
    for (int page = 0; page < pages(Dim); ++page)
        for (int i = valid_rows * 32 + static_cast<int>(threadIdx.x) - 128; i < Rows * 32; i += 128 * Consumers)
            store_shared(tile + page * Rows * 128 + i * 4, 0);
}

}  // namespace trainer::cuda
