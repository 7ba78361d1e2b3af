// What the Hopper backward kernels share: parameters, and for those whose thread blocks own keys, the two warps that feed them.
#pragma once
#include "attention.h"
#include "hopper.cuh"
#include "key_work.cuh"
#include "softmax.cuh"

namespace trainer::cuda {

struct BackwardParameters {
    CUtensorMap q, k, v, dout;
    Attention attention;
    Matrix dq, dk, dv;
    const float* lse;
    RowFloats delta;
    Order order;
    Tiles tiles;
};

constexpr int backward_stages = 2;

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

struct KeyBarriers {
    uint32_t first;

    __device__ uint32_t keys_full() const { return first; }
    __device__ uint32_t q_full(int stage) const { return first + 8 + 8 * stage; }
    __device__ uint32_t dout_full(int stage) const { return first + 8 + 8 * (backward_stages + stage); }
    __device__ uint32_t rows_full(int stage) const { return first + 8 + 8 * (2 * backward_stages + stage); }
    __device__ uint32_t empty(int stage) const { return first + 8 + 8 * (3 * backward_stages + stage); }
    __device__ uint32_t rows_empty(int stage) const { return first + 8 + 8 * (4 * backward_stages + stage); }

    // So far behind q_full and dout_full lie the barriers of a block that is not yet as the consumers may see it.
    static constexpr int landed = 8 * 5 * backward_stages, bytes = 8 + 8 * 7 * backward_stages;

    __device__ void init(int consumers) const {
        init_barrier(keys_full(), 1);
        for (int stage = 0; stage < backward_stages; ++stage) {
            init_barrier(q_full(stage), 1);
            init_barrier(dout_full(stage), 1);
            init_barrier(rows_full(stage), 32);
            init_barrier(empty(stage), consumers);
            init_barrier(rows_empty(stage), 128 * consumers);
            init_barrier(q_full(stage) + landed, 1);
            init_barrier(dout_full(stage) + landed, 1);
        }
        publish_barriers();
    }
};

// Whether the copy engine brings rows of the next sequence with this block of queries.
template <int Rows>
__device__ inline bool brings_foreign_rows(const BackwardParameters& p, const KeyWork& w, int block) {
    return w.sequence.q_length - block * Rows < Rows && w.sequence.q_begin + w.sequence.q_length < p.attention.q_tokens;
}

// One thread brings the keys and values, then queries and dout of every visit. Size says where in shared memory.
template <class Size, int Dim>
__device__ void feed_queries(const BackwardParameters& p, const KeyWork& w, uint32_t base) {
    const KeyBarriers barriers{base + Size::barriers};
    Turn<backward_stages> turn;
    const int visits = w.visits();
    if (visits == 0) return;
    arrive_expecting(barriers.keys_full(), 2 * Size::k_bytes);
    copy_pages<Dim>(base + Size::k, Size::keys, p.k, barriers.keys_full(), w.kv_head, w.sequence.k_begin + w.first_key);
    copy_pages<Dim>(base + Size::v, Size::keys, p.v, barriers.keys_full(), w.kv_head, w.sequence.k_begin + w.first_key);
    for (int visit = 0; visit < visits; ++visit) {
        const auto [head, block] = w.visit(visit);
        const int token = w.sequence.q_begin + block * Size::rows;
        wait(barriers.empty(turn.stage), turn.parity ^ 1);
        const uint32_t landed = brings_foreign_rows<Size::rows>(p, w, block) ? KeyBarriers::landed : 0;
        const uint32_t q_full = barriers.q_full(turn.stage) + landed, dout_full = barriers.dout_full(turn.stage) + landed;
        arrive_expecting(q_full, Size::q_bytes);
        copy_pages<Dim>(base + Size::q + turn.stage * Size::q_bytes, Size::rows, p.q, q_full, head, token);
        arrive_expecting(dout_full, Size::q_bytes);
        copy_pages<Dim>(base + Size::dout + turn.stage * Size::q_bytes, Size::rows, p.dout, dout_full, head, token);
        turn.advance();
    }
}

// One warp makes rows of the next sequence zeros, and only then lets the consumers have the block.
template <class Size, int Dim>
__device__ void clear_foreign_rows(const BackwardParameters& p, const KeyWork& w, uint32_t base) {
    const KeyBarriers barriers{base + Size::barriers};
    const int lane = threadIdx.x % 32, visits = w.visits();
    uint32_t parities = 0;  // a bit for each stage
    for (int visit = 0; visit < visits; ++visit) {
        const int block = w.visit(visit).block, stage = visit % backward_stages;
        if (!brings_foreign_rows<Size::rows>(p, w, block)) continue;
        wait(barriers.q_full(stage) + KeyBarriers::landed, parities >> stage & 1);
        wait(barriers.dout_full(stage) + KeyBarriers::landed, parities >> stage & 1);
        parities ^= 1u << stage;
        const uint32_t q_page = base + Size::q + stage * Size::q_bytes;
#pragma unroll 1
        for (int page = 0; page < pages(Dim); ++page)
#pragma unroll 1
            for (int i = (w.sequence.q_length - block * Size::rows) * 8 + lane; i < Size::rows * 8; i += 32) {
                clear_shared_16(q_page + page * Size::rows * 128 + i * 16);
                clear_shared_16(q_page + (Size::dout - Size::q) + page * Size::rows * 128 + i * 16);
            }
        publish_shared();
        __syncwarp();
        if (lane == 0) {
            arrive(barriers.q_full(stage));
            arrive(barriers.dout_full(stage));
        }
    }
}

// One warp brings -lse * log2(e) and delta of the rows: -infinity and 0 beyond the sequence, so that probabilities are 0 there.
template <class Size>
__device__ void feed_rows(const BackwardParameters& p, const KeyWork& w, uint32_t base) {
    const KeyBarriers barriers{base + Size::barriers};
    Turn<backward_stages> turn;
    const int lane = threadIdx.x % 32, visits = w.visits();
    for (int visit = 0; visit < visits; ++visit) {
        const auto [head, block] = w.visit(visit);
        const int first_row = block * Size::rows;
        const int64_t first_token = w.sequence.q_begin + first_row;
        float lse[Size::rows / 32], delta[Size::rows / 32];
#pragma unroll
        for (int i = 0; i < Size::rows / 32; ++i) {
            const int row = 32 * i + lane;
            const bool valid = first_row + row < w.sequence.q_length;
            lse[i] = valid ? minus_lse_log2(p.lse[head * p.attention.q_tokens + first_token + row]) : -INFINITY;
            delta[i] = valid ? p.delta.at(first_token + row, head) : 0;
        }
        wait(barriers.rows_empty(turn.stage), turn.parity ^ 1);
#pragma unroll
        for (int i = 0; i < Size::rows / 32; ++i) {
            const uint32_t offset = turn.stage * Size::row_bytes + (32 * i + lane) * 4;
            store_shared(base + Size::lse + offset, __float_as_uint(lse[i]));
            store_shared(base + Size::delta + offset, __float_as_uint(delta[i]));
        }
        arrive(barriers.rows_full(turn.stage));
        turn.advance();
    }
}

}  // namespace trainer::cuda
