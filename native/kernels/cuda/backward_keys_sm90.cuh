// The part of a Hopper backward pass whose thread blocks own keys: they sum dk and dv in registers. In any order, they also add
// every visit's share of dq to a float32 copy in global memory.
#pragma once
#include "backward_sm90.cuh"
#include "key_work.cuh"

namespace trainer::cuda {

constexpr int key_stages = 2;

struct KeyBarriers {
    uint32_t first;

    __device__ uint32_t keys_full() const { return first; }
    __device__ uint32_t q_full(int stage) const { return first + 8 + 8 * stage; }
    __device__ uint32_t dout_full(int stage) const { return first + 8 + 8 * (key_stages + stage); }
    __device__ uint32_t rows_full(int stage) const { return first + 8 + 8 * (2 * key_stages + stage); }
    __device__ uint32_t empty(int stage) const { return first + 8 + 8 * (3 * key_stages + stage); }
    __device__ uint32_t rows_empty(int stage) const { return first + 8 + 8 * (4 * key_stages + stage); }

    // So far behind q_full and dout_full lie the barriers of a block that is not yet as the consumers may see it.
    static constexpr int landed = 8 * 5 * key_stages, bytes = 8 + 8 * 7 * key_stages;

    __device__ void init(int consumers) const {
        init_barrier(keys_full(), 1);
        for (int stage = 0; stage < key_stages; ++stage) {
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

// Two consumers, or three: these have registers for fewer queries a visit, but more that runs beside softmax.
template <int Dim, bool AnyOrder>
struct KeySizes {
    static constexpr bool three = Dim == 64 && !AnyOrder, may_meet = Dim == 128 && AnyOrder;
    static constexpr int consumers = three ? 3 : 2, threads = 128 * (consumers + 1), stages = key_stages;
    // Together what the block was launched with: 128 registers a thread for four warpgroups, 168 for three.
    static constexpr int producer_registers = three ? 32 : 40, consumer_registers = three ? 160 : 232;
    static constexpr int keys = 64 * consumers, rows = Dim == 64 && AnyOrder ? 128 : 64;
    static constexpr int k_bytes = tile_bytes(keys, Dim), q_bytes = tile_bytes(rows, Dim), row_bytes = rows * 4;
    // In any order. ds is held transposed, keys by queries, one tile for this visit and one for the last. Each warp has a tile of
    // dq of 16 rows and 64 columns, in two pages of 32 floats a row.
    static constexpr int ds_bytes = AnyOrder ? tile_bytes(keys, rows) : 0;
    static constexpr int dq_page_bytes = 16 * 128, dq_bytes = AnyOrder ? 2 * dq_page_bytes : 0;
    static constexpr int k = 0, v = k_bytes, q = 2 * k_bytes, dout = q + stages * q_bytes, ds = dout + stages * q_bytes;
    static constexpr int dq = ds + 2 * ds_bytes, lse = dq + 4 * consumers * dq_bytes, delta = lse + stages * row_bytes;
    static constexpr int visits = delta + stages * row_bytes, barriers = visits + stages * 8;
    static constexpr int ds_barriers = barriers + KeyBarriers::bytes, bytes = ds_barriers + 32;
    static constexpr int aligned_bytes = bytes + 1024;
    static constexpr int sum_bytes = 2 * 64 * consumers * Dim * 4;  // of dk and dv, float32: see share_sums
    static_assert(!AnyOrder || sum_bytes <= ds, "other warps may still read ds");
};

// index: of this thread block's visits; a cluster's thread blocks are side by side, at queries that the L2 cache holds for all of them.
// Where blocks of queries have 128 rows, of half the bytes, meeting costs more than it saves.
template <class Size>
__device__ inline Visit visit_of(const KeyWork& w, int index) {
    index = index * w.cluster + w.rank;
    if constexpr (Size::may_meet)
        if (w.run > 0) return w.meeting_visit(index);
    return w.visit(index);
}

// Whether the copy engine brings rows of the next sequence with this block of queries.
template <int Rows>
__device__ inline bool brings_foreign_rows(const BackwardParameters& p, const KeyWork& w, int block) {
    return w.sequence.q_length - block * Rows < Rows && w.sequence.q_begin + w.sequence.q_length < p.attention.q_tokens;
}

// One thread brings the keys and values, then queries and dout of every visit. Size says where in shared memory.
template <class Size, int Dim>
__device__ void feed_queries(const BackwardParameters& p, const KeyWork& w, uint32_t base) {
    const KeyBarriers barriers{base + Size::barriers};
    Turn<key_stages> turn;
    const int visits = w.visits();
    if (visits == 0) return;
    arrive_expecting(barriers.keys_full(), 2 * Size::k_bytes);
    copy_pages<Dim>(base + Size::k, Size::keys, p.k, barriers.keys_full(), w.kv_head, w.sequence.k_begin + w.first_key);
    copy_pages<Dim>(base + Size::v, Size::keys, p.v, barriers.keys_full(), w.kv_head, w.sequence.k_begin + w.first_key);
    for (int visit = 0; visit < visits; ++visit) {
        const auto [head, block] = visit_of<Size>(w, visit);
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
        const int block = visit_of<Size>(w, visit).block, stage = visit % key_stages;
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

// One warp brings -lse * log2(e) and delta of the rows: -infinity and 0 beyond the sequence, so that probabilities are 0 there. It
// also says which visit this is: the consumers have no registers to count along.
template <class Size>
__device__ void feed_rows(const BackwardParameters& p, const KeyWork& w, uint32_t base) {
    const KeyBarriers barriers{base + Size::barriers};
    Turn<key_stages> turn;
    const int lane = threadIdx.x % 32, visits = w.visits();
    // It made delta and cleared dq, or waited for the one that did; consumers add to dq only after they have seen rows of delta.
    wait_for_last_kernel();
    for (int visit = 0; visit < visits; ++visit) {
        const auto [head, block] = visit_of<Size>(w, visit);
        float lse[Size::rows / 32], delta[Size::rows / 32];
#pragma unroll
        for (int i = 0; i < Size::rows / 32; ++i) {
            // Rows beyond the sequence get its last row's, so that all is on its way at once, without a branch.
            const int64_t token = w.sequence.q_begin + min(block * Size::rows + 32 * i + lane, w.sequence.q_length - 1);
            lse[i] = p.lse[head * p.attention.q_tokens + token];
            delta[i] = p.delta.at(token, head);
        }
        wait(barriers.rows_empty(turn.stage), turn.parity ^ 1);
#pragma unroll
        for (int i = 0; i < Size::rows / 32; ++i) {
            const bool valid = block * Size::rows + 32 * i + lane < w.sequence.q_length;
            const uint32_t offset = turn.stage * Size::row_bytes + (32 * i + lane) * 4;
            store_shared(base + Size::lse + offset, __float_as_uint(valid ? minus_lse_log2(lse[i]) : -INFINITY));
            store_shared(base + Size::delta + offset, valid ? __float_as_uint(delta[i]) : 0);
        }
        if (lane == 0) store_shared_float2(base + Size::visits + turn.stage * 8, __int_as_float(head), __int_as_float(block));
        arrive(barriers.rows_full(turn.stage));
        turn.advance();
    }
}

// The producer warpgroup.
template <class Size, int Dim>
__device__ inline void feed_key_block(const BackwardParameters& p, const KeyWork& w, uint32_t base) {
    if (threadIdx.x == 0) feed_queries<Size, Dim>(p, w, base);
    if (threadIdx.x / 32 == 1) feed_rows<Size>(p, w, base);
    if (threadIdx.x / 32 == 2) clear_foreign_rows<Size, Dim>(p, w, base);
}

// Of the two ds tiles. full: every warp has written its part; empty: both warpgroups have read it.
struct DsBarriers {
    uint32_t first;

    __device__ uint32_t full(int tile) const { return first + 8 * tile; }
    __device__ uint32_t empty(int tile) const { return first + 16 + 8 * tile; }

    __device__ void init(int consumers) const {
        for (int tile = 0; tile < 2; ++tile) {
            init_barrier(full(tile), 4 * consumers);
            init_barrier(empty(tile), consumers);
        }
    }
};

// The thread blocks of a cluster have shared the visits to the same keys. The first adds up dk, the second dv, its own and then the
// others' in order of rank: the same bits in every run.
template <int Dim, int Threads>
__device__ inline void share_sums(float (&dk)[Dim / 8][4], float (&dv)[Dim / 8][4], uint32_t base, int rank, int cluster) {
    constexpr int step = Threads * 16, all = Dim / 8 * step;
    const uint32_t lane_dk = base + (thread_index() - 128) * 16, lane_dv = lane_dk + all;
    const auto give = [&](const float (&sums)[Dim / 8][4], uint32_t at) {
#pragma unroll
        for (int n = 0; n < Dim / 8; ++n) store_shared_float4(at + n * step, sums[n]);
    };
    const auto take = [&](float (&sums)[Dim / 8][4], uint32_t at) {
#pragma unroll 1
        for (int from = 0; from < cluster; ++from) {
            if (from == rank) continue;
#pragma unroll
            for (int n = 0; n < Dim / 8; ++n) {
                const float4 x = load_shared_float4(at + n * step, from);
                sums[n][0] += x.x;
                sums[n][1] += x.y;
                sums[n][2] += x.z;
                sums[n][3] += x.w;
            }
        }
    };
    if (rank != 0) give(dk, lane_dk);
    if (rank != 1) give(dv, lane_dv);
    sync_cluster();
    if (rank == 0) take(dk, lane_dk);
    if (rank == 1) take(dv, lane_dv);
    sync_cluster();  // nobody's shared memory goes away while others read it
}

// One warpgroup: 64 keys, and of every visit's dq the 64 columns (head_dim 128) or the 64 rows (64) that bear its number.
//
// dq needs the other warpgroup's ds. It is computed one visit late, so that neither has to wait for the other and one's softmax
// runs under the other's products. LSE and delta are given back by every lane that read them: it costs nothing, and is what
// compute-sanitizer can follow.
template <class T, int Dim, bool AnyOrder, bool InClusters>
__device__ void sum_keys(const BackwardParameters& p, const CUtensorMap* dq_NTH, const KeyWork& w, uint32_t base) {
    using Size = KeySizes<Dim, AnyOrder>;
    constexpr int rows = Size::rows;
    const Attention& a = p.attention;
    const Sequence& s = w.sequence;
    const KeyBarriers barriers{base + Size::barriers};
    const DsBarriers ds_barriers{base + Size::ds_barriers};
    const int visits = w.visits();

    const auto start_dq = [&](float (&dq)[8][4], int visit) {
        const int group = thread_index() / 128 - 1;
        const uint32_t ds_part = base + Size::ds + visit % 2 * Size::ds_bytes + (Dim == 64 ? group * Size::keys * 128 : 0);
        start_product_over_rows<T, Size::keys>(dq, describe(ds_part), describe(base + Size::k + (Dim == 64 ? 0 : group * Size::keys * 128)));
    };
    // Every warp sends its own 16 rows.
    const auto add_dq = [&](float (&dq)[8][4], const Visit& of) {
        const int thread = thread_index(), group = thread / 128 - 1, lane = thread % 32, row = lane / 4;
        const int first_row = of.block * rows + (Dim == 64 ? 64 * group : 0) + thread % 128 / 32 * 16;
        const uint32_t tile = base + Size::dq + (thread / 32 - 4) * Size::dq_bytes;
        if (s.q_length - first_row < 16)  // rows of the next sequence get nothing from here, not even a NaN
#pragma unroll
            for (int n = 0; n < 8; ++n)
#pragma unroll
                for (int e = 0; e < 4; ++e)
                    if (first_row + row + 8 * (e / 2) >= s.q_length) dq[n][e] = 0;
        if (lane == 0) wait_bulk_reads();
        __syncwarp();
        // In every store odd rows are two column blocks off: else half of them would meet the banks of even ones.
        const bool odd = row % 2;
        const uint32_t to = (tile + row * 128 + ((lane % 4 / 2) ^ row) * 16 + lane % 2 * 8) ^ (odd ? 64 : 0);
#pragma unroll
        for (int n = 0; n < 8; ++n)
#pragma unroll
            for (int half = 0; half < 2; ++half)
                store_shared_float2((to ^ (n % 4 * 32)) + n / 4 * Size::dq_page_bytes + half * 8 * 128,
                                    odd ? dq[n ^ 2][2 * half] : dq[n][2 * half], odd ? dq[n ^ 2][2 * half + 1] : dq[n][2 * half + 1]);
        publish_shared();
        __syncwarp();
        if (lane == 0) {
            for (int page = 0; page < 2; ++page)
                add_box(*dq_NTH, tile + page * Size::dq_page_bytes, (Dim == 64 ? 0 : 64 * group) + 32 * page, of.head,
                        s.q_begin + first_row);
            close_bulk_group();
        }
    };

    float dk[Dim / 8][4] = {}, dv[Dim / 8][4] = {};
    if (visits > 0) {
        wait(barriers.keys_full(), 0);
        const int valid_keys = s.k_length - w.first_key;
        if (valid_keys < Size::keys && s.k_begin + s.k_length < a.k_tokens) {
            clear_rows<Size::keys, Dim, Size::consumers>(base + Size::k, valid_keys);
            clear_rows<Size::keys, Dim, Size::consumers>(base + Size::v, valid_keys);
            publish_shared();
            sync_threads(1, 128 * Size::consumers);
        }
    }
    [[maybe_unused]] Visit last{};
    for (int visit = 0; visit < visits; ++visit) {
        // Where this thread belongs is worked out anew in every visit: there are no registers to keep it in.
        const int thread = thread_index(), group = thread / 128 - 1, lane = thread % 32;
        const int key_row = 64 * group + thread % 128 / 32 * 16;  // the warp's first one in the tile
        const bool speaker = thread % 128 == 0;                   // arrives for its warpgroup
        const int stage = visit % 2, parity = visit / 2 % 2;
        const uint32_t q_tile = base + Size::q + stage * Size::q_bytes, dout_tile = base + Size::dout + stage * Size::q_bytes;
        float scores[rows / 8][4], dp[rows / 8][4];
        [[maybe_unused]] float dq[8][4];
        wait(barriers.q_full(stage), parity);
        start_product<T, Dim, Size::keys, rows>(scores, describe(base + Size::k + group * 64 * 128), describe(q_tile));
        wait(barriers.dout_full(stage), parity);
        start_product<T, Dim, Size::keys, rows>(dp, describe(base + Size::v + group * 64 * 128), describe(dout_tile));
        wait(barriers.rows_full(stage), parity);
        const float2 described = load_shared_float2(base + Size::visits + stage * 8);
        const Visit v{__float_as_int(described.x), __float_as_int(described.y)};
        wait_products<1>();
        pin(scores);

        if (w.masked(v.block)) {
            const auto seeing = [&](int key) { return key < s.k_length ? seeing_queries(a, s, key, key) : Visible{0, 0}; };
            const int key = w.first_key + key_row + lane / 4;
            mask_scores(scores, {seeing(key), seeing(key + 8)}, v.block * rows, lane);
        }
        const uint32_t row_values = base + stage * Size::row_bytes + lane % 4 * 8;
#pragma unroll
        for (int n = 0; n < rows / 8; ++n) {
            const float2 minus_lse = load_shared_float2(row_values + Size::lse + n * 32);
#pragma unroll
            for (int e = 0; e < 4; ++e) scores[n][e] = exp2_fast(fmaf(scores[n][e], a.scale_log2, e % 2 ? minus_lse.y : minus_lse.x));
        }
        if constexpr (AnyOrder) wait(ds_barriers.empty(stage), parity ^ 1);
        wait_products<0>();
        pin(dp);
        uint32_t p_part[rows / 16][4], ds_part[rows / 16][4];
        [[maybe_unused]] const uint32_t ds_lane = a_lane(base + Size::ds + stage * Size::ds_bytes + key_row * 128, lane);
#pragma unroll
        for (int step = 0; step < rows / 16; ++step) {
#pragma unroll
            for (int n = 2 * step; n < 2 * step + 2; ++n) {
                const float2 delta = load_shared_float2(row_values + Size::delta + n * 32);
#pragma unroll
                for (int e = 0; e < 4; ++e) dp[n][e] = scores[n][e] * (dp[n][e] - (e % 2 ? delta.y : delta.x));
            }
            pack_a<T>(p_part[step], scores, step);
            pack_a<T>(ds_part[step], dp, step);
            if constexpr (AnyOrder) store_matrices(step_address<Size::keys>(ds_lane, 0, step), ds_part[step]);
        }
        start_sum<T>(dv, p_part, describe(dout_tile, rows * 128));
        if constexpr (AnyOrder) publish_shared();
        arrive(barriers.rows_empty(stage));
        if constexpr (AnyOrder) {
            __syncwarp();
            if (lane == 0) arrive(ds_barriers.full(stage));
            // The last visit's dq; in the first there is none, and what comes of whatever lies there goes nowhere.
            if (visit > 0) wait(ds_barriers.full(stage ^ 1), (visit - 1) / 2 % 2);
            start_dq(dq, visit + 1);
        }
        start_sum<T>(dk, ds_part, describe(q_tile, rows * 128));
        wait_products<1>();
        pin(dv);
        if constexpr (AnyOrder) {
            pin(dq);
            if (visit > 0) {
                if (speaker) arrive(ds_barriers.empty(stage ^ 1));
                add_dq(dq, last);
            }
        }
        wait_products<0>();
        pin(dk);
        if (speaker) arrive(barriers.empty(stage));
        if constexpr (AnyOrder) last = v;
    }
    if (AnyOrder && visits > 0) {
        float dq[8][4];
        wait(ds_barriers.full((visits - 1) % 2), (visits - 1) / 2 % 2);
        start_dq(dq, visits - 1);
        wait_products<0>();
        pin(dq);
        add_dq(dq, last);
        if (thread_index() % 32 == 0) wait_bulk_reads();
    }

    // The tiles become output, once the other warpgroup has read them for its dq.
    sync_threads(1, 128 * Size::consumers);
    const Place place = InClusters ? place_of(p.plan, block_index()) : Place{0, 0, 1};  // found anew: there are no registers to keep it
    if (place.cluster > 1) share_sums<Dim, 128 * Size::consumers>(dk, dv, base, place.rank, place.cluster);
    const int lane = threadIdx.x % 32, key_row = 64 * (static_cast<int>(threadIdx.x) / 128 - 1) + static_cast<int>(threadIdx.x) % 128 / 32 * 16;
    const int64_t token = s.k_begin + w.first_key;
    const int valid_rows = s.k_length - w.first_key;
    const bool writes_dk = place.rank == 0, writes_dv = place.rank == (place.cluster > 1);
    if (writes_dk) store_rows<T, Size::keys>(base + Size::k, dk, {a.scale, a.scale}, key_row, lane);
    if (writes_dv) store_rows<T, Size::keys>(base + Size::v, dv, {1.f, 1.f}, key_row, lane);
    __syncwarp();
    write_rows<Size::keys, Dim, 16>(base + Size::k, p.dk.at(token, w.kv_head), p.dk.token_stride, key_row, writes_dk ? valid_rows : 0,
                                    a.head_dim, lane);
    write_rows<Size::keys, Dim, 16>(base + Size::v, p.dv.at(token, w.kv_head), p.dv.token_stride, key_row, writes_dv ? valid_rows : 0,
                                    a.head_dim, lane);
}

}  // namespace trainer::cuda
