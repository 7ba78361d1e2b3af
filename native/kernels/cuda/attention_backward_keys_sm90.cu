// Backward attention for Hopper, the part whose thread blocks own keys: they sum dk and dv in registers. In any order, they also
// add every visit's share of dq to a float32 copy in global memory; five products then make the whole backward pass.
#include "attention.h"
#include "backward_sm90.cuh"
#include "device.h"
#include "launch.h"
#include "tensor_map.h"

namespace trainer::cuda {

namespace {

struct Parameters {
    BackwardParameters backward;
    CUtensorMap dq_NTH;
};

constexpr int stages = backward_stages, consumers = 2, threads = 128 * (consumers + 1);
// Together what the block was launched with: 168 registers a thread.
constexpr int producer_registers = 40, consumer_registers = 232;

template <int Dim, bool AnyOrder>
struct Sizes {
    static constexpr int keys = 64 * consumers, rows = Dim == 64 ? 128 : 64;
    static constexpr int k_bytes = tile_bytes(keys, Dim), q_bytes = tile_bytes(rows, Dim), row_bytes = rows * 4;
    // In any order. ds is held transposed, keys by queries, one tile for this visit and one for the last. Each warp has a tile of
    // dq of 16 rows and 64 columns, in two pages of 32 floats a row.
    static constexpr int ds_bytes = AnyOrder ? tile_bytes(keys, rows) : 0;
    static constexpr int dq_page_bytes = 16 * 128, dq_bytes = AnyOrder ? 2 * dq_page_bytes : 0;
    static constexpr int k = 0, v = k_bytes, q = 2 * k_bytes, dout = q + stages * q_bytes, ds = dout + stages * q_bytes;
    static constexpr int dq = ds + 2 * ds_bytes, lse = dq + 4 * consumers * dq_bytes, delta = lse + stages * row_bytes;
    static constexpr int barriers = delta + stages * row_bytes, ds_barriers = barriers + KeyBarriers::bytes, bytes = ds_barriers + 32;
    static constexpr int aligned_bytes = bytes + 1024;
};

// Of the two ds tiles. full: every warp has written its part; empty: both warpgroups have read it.
struct DsBarriers {
    uint32_t first;

    __device__ uint32_t full(int tile) const { return first + 8 * tile; }
    __device__ uint32_t empty(int tile) const { return first + 16 + 8 * tile; }

    __device__ void init() const {
        for (int tile = 0; tile < 2; ++tile) {
            init_barrier(full(tile), 4 * consumers);
            init_barrier(empty(tile), consumers);
        }
    }
};

// One warpgroup: 64 keys, and of every visit's dq the 64 columns (head_dim 128) or the 64 rows (64) that bear its number.
//
// dq needs the other warpgroup's ds. It is computed one visit late, so that neither has to wait for the other and one's softmax
// runs under the other's products. LSE and delta are given back by every lane that read them: it costs nothing, and is what
// compute-sanitizer can follow.
template <class T, int Dim, bool AnyOrder>
__device__ void sum(const Parameters& parameters, const KeyWork& w, uint32_t base) {
    using Size = Sizes<Dim, AnyOrder>;
    constexpr int rows = Size::rows;
    const BackwardParameters& p = parameters.backward;
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
    const auto add_dq = [&](float (&dq)[8][4], int head, int block) {
        const int thread = thread_index(), group = thread / 128 - 1, lane = thread % 32, row = lane / 4;
        const int first_row = block * rows + (Dim == 64 ? 64 * group : 0) + thread % 128 / 32 * 16;
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
                add_box(parameters.dq_NTH, tile + page * Size::dq_page_bytes, (Dim == 64 ? 0 : 64 * group) + 32 * page, head,
                        s.q_begin + first_row);
            close_bulk_group();
        }
    };

    float dk[Dim / 8][4] = {}, dv[Dim / 8][4] = {};
    if (visits > 0) {
        wait(barriers.keys_full(), 0);
        const int valid_keys = s.k_length - w.first_key;
        if (valid_keys < Size::keys && s.k_begin + s.k_length < a.k_tokens) {
            clear_rows<Size::keys, Dim, consumers>(base + Size::k, valid_keys);
            clear_rows<Size::keys, Dim, consumers>(base + Size::v, valid_keys);
            publish_shared();
            sync_threads(1, 128 * consumers);
        }
    }
    Visit v{w.kv_head * w.group, w.begin_block};
    for (int visit = 0; visit < visits; ++visit) {
        // Where this thread belongs is worked out anew in every visit: there are no registers to keep it in.
        const int thread = thread_index(), group = thread / 128 - 1, lane = thread % 32;
        const int key_row = 64 * group + thread % 128 / 32 * 16;  // the warp's first one in the tile
        const bool speaker = thread % 128 == 0;                   // arrives for its warpgroup
        const int stage = visit % 2, parity = visit / 2 % 2, first_row = v.block * rows;
        const uint32_t q_tile = base + Size::q + stage * Size::q_bytes, dout_tile = base + Size::dout + stage * Size::q_bytes;
        float scores[rows / 8][4], dp[rows / 8][4];
        [[maybe_unused]] float dq[8][4];
        wait(barriers.q_full(stage), parity);
        start_product<T, Dim, Size::keys, rows>(scores, describe(base + Size::k + group * 64 * 128), describe(q_tile));
        wait(barriers.dout_full(stage), parity);
        start_product<T, Dim, Size::keys, rows>(dp, describe(base + Size::v + group * 64 * 128), describe(dout_tile));
        wait(barriers.rows_full(stage), parity);
        wait_products<1>();
        pin(scores);

        if (w.masked(v.block)) {
            const auto seeing = [&](int key) { return key < s.k_length ? seeing_queries(a, s, key, key) : Visible{0, 0}; };
            const int key = w.first_key + key_row + lane / 4;
            mask_scores(scores, {seeing(key), seeing(key + 8)}, first_row, lane);
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
                const bool same_head = v.block > w.begin_block;
                add_dq(dq, same_head ? v.head : v.head - 1, (same_head ? v.block : w.end_block) - 1);
            }
        }
        wait_products<0>();
        pin(dk);
        if (speaker) arrive(barriers.empty(stage));
        if (++v.block == w.end_block) v = {v.head + 1, w.begin_block};
    }
    if (AnyOrder && visits > 0) {
        float dq[8][4];
        wait(ds_barriers.full((visits - 1) % 2), (visits - 1) / 2 % 2);
        start_dq(dq, visits - 1);
        wait_products<0>();
        pin(dq);
        add_dq(dq, v.head - 1, w.end_block - 1);
        if (thread_index() % 32 == 0) wait_bulk_writes();
    }

    // The warpgroup's own rows of the key and value tiles become its output, once the other has read them for its dq.
    sync_threads(1, 128 * consumers);
    const int lane = threadIdx.x % 32, key_row = 64 * (static_cast<int>(threadIdx.x) / 128 - 1) + static_cast<int>(threadIdx.x) % 128 / 32 * 16;
    store_rows<T, Size::keys>(base + Size::k, dk, {a.scale, a.scale}, key_row, lane);
    store_rows<T, Size::keys>(base + Size::v, dv, {1.f, 1.f}, key_row, lane);
    __syncwarp();
    const int64_t token = s.k_begin + w.first_key;
    const int valid_rows = s.k_length - w.first_key;
    write_rows<Size::keys, Dim, 16>(base + Size::k, p.dk.at(token, w.kv_head), p.dk.token_stride, key_row, valid_rows, a.head_dim, lane);
    write_rows<Size::keys, Dim, 16>(base + Size::v, p.dv.at(token, w.kv_head), p.dv.token_stride, key_row, valid_rows, a.head_dim, lane);
}

template <class T, int Dim, bool AnyOrder>
__global__ void __launch_bounds__(threads, 1) backward_keys_sm90(const __grid_constant__ Parameters p) {
    using Size = Sizes<Dim, AnyOrder>;
    extern __shared__ unsigned char shared[];
    const uint32_t base = (shared_address(shared) + 1023) & ~1023u;
    const KeyBarriers barriers{base + Size::barriers};
    const KeyWork w = key_work<Size::keys, Size::rows>(p.backward.attention, p.backward.tiles, p.backward.order, blockIdx.x);
    if (threadIdx.x == 0) {
        if constexpr (AnyOrder) DsBarriers{base + Size::ds_barriers}.init();
        barriers.init(consumers);
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        shrink_registers<producer_registers>();
        if (threadIdx.x == 0) feed_queries<Size, Dim>(p.backward, w, base);
        if (threadIdx.x / 32 == 1) feed_rows<Size>(p.backward, w, base);
        if (threadIdx.x / 32 == 2) clear_foreign_rows<Size, Dim>(p.backward, w, base);
    } else {
        grow_registers<consumer_registers>();
        sum<T, Dim, AnyOrder>(p, w, base);
    }
}

template <class T, int Dim, bool AnyOrder>
void start(const tn_attention_backward_args& args, const RowFloats& delta, float* dq_NTH, cudaStream_t stream) {
    using Size = Sizes<Dim, AnyOrder>;
    const tn_attention_shape& s = args.shape;
    const int group = s.q_heads / s.kv_heads;
    Parameters p{{tensor_map(args.q_TNH, s.dtype, s.q_tokens, s.q_heads, s.head_dim, Size::rows),
                  tensor_map(args.k_TMH, s.dtype, s.k_tokens, s.kv_heads, s.head_dim, Size::keys),
                  tensor_map(args.v_TMH, s.dtype, s.k_tokens, s.kv_heads, s.head_dim, Size::keys),
                  tensor_map(args.dout_TNH, s.dtype, s.q_tokens, s.q_heads, s.head_dim, Size::rows),
                  attention(s), matrix(args.dq_TNH), matrix(args.dk_TMH), matrix(args.dv_TMH), args.lse_NT, delta,
                  l2_order((AnyOrder ? 8 : 4) * s.q_tokens * s.head_dim * group, s.kv_heads, 1, current_device().multiprocessors), {}},
                 {}};
    if (AnyOrder) p.dq_NTH = float_tensor_map(dq_NTH, s.q_tokens, s.q_heads, s.head_dim, 16);
    for (const Tiles& tiles : cut_into_tiles(s, Axis::keys, Size::keys)) {
        p.backward.tiles = tiles;
        launch(backward_keys_sm90<T, Dim, AnyOrder>, "attention backward of keys and values", int64_t{tiles.count} * s.kv_heads, threads,
               Size::aligned_bytes, stream, p);
    }
}

template <class T>
void start(const tn_attention_backward_args& args, const RowFloats& delta, float* dq_NTH, cudaStream_t stream) {
    const bool wide = args.shape.head_dim == 128;
    if (dq_NTH) (wide ? start<T, 128, true> : start<T, 64, true>)(args, delta, dq_NTH, stream);
    else (wide ? start<T, 128, false> : start<T, 64, false>)(args, delta, dq_NTH, stream);
}

}  // namespace

void hopper_attention_backward_keys(const tn_attention_backward_args& args, const RowFloats& delta, float* dq_NTH,
                                         cudaStream_t stream) {
    if (args.shape.dtype == TN_BFLOAT16) start<Bf16>(args, delta, dq_NTH, stream);
    else start<Fp16>(args, delta, dq_NTH, stream);
}

}  // namespace trainer::cuda
