// Forward attention for Hopper: one warpgroup feeds keys and values through the copy engine, the others own 64 query rows
// each and keep two products in flight, scores of the next key block and output of the last, while they do the softmax.
#include "attention.h"
#include "hopper.cuh"
#include "launch.h"
#include "query_work.cuh"
#include "softmax.cuh"
#include "device.h"
#include "tensor_map.h"

#include <algorithm>
#include <type_traits>

namespace trainer::cuda {

namespace {

struct Parameters {
    CUtensorMap q, k, v;
    Attention attention;
    Matrix out;
    float* lse;
    Order order;
    Tiles tiles;
};

constexpr int stages = 2, keys = 128;

template <int Dim>
struct Sizes {
    static constexpr int consumers = Dim == 64 ? 3 : 2, rows = 64 * consumers, threads = 128 * (consumers + 1);
    // Together what the block was launched with: 128 registers a thread for four warpgroups, 168 for three.
    static constexpr int producer_registers = Dim == 64 ? 32 : 40, consumer_registers = Dim == 64 ? 160 : 232;
    static constexpr int q_bytes = tile_bytes(rows, Dim), k_bytes = tile_bytes(keys, Dim);
    // Offsets in shared memory; barriers come last.
    static constexpr int q = 0, out = q_bytes, k = 2 * q_bytes, v = k + stages * k_bytes, barriers = v + stages * k_bytes;
    static constexpr int bytes = barriers + 128, aligned_bytes = bytes + 1024;
};

// Addresses of the barriers. full: the copy engine has written; empty: every consumer has read.
struct Barriers {
    uint32_t first;

    __device__ uint32_t q_full() const { return first; }
    __device__ uint32_t q_empty() const { return first + 8; }
    __device__ uint32_t k_full(int stage) const { return first + 16 + 8 * stage; }
    __device__ uint32_t k_empty(int stage) const { return first + 16 + 8 * (stages + stage); }
    __device__ uint32_t v_full(int stage) const { return first + 16 + 8 * (2 * stages + stage); }
    __device__ uint32_t v_empty(int stage) const { return first + 16 + 8 * (3 * stages + stage); }
};

// The tile that this thread block takes in its n-th round, or the count of tiles when there is none. Tiles come in order of
// falling work; turning the order round in every other round gives each thread block a like share.
__device__ int tile_of_round(int round, int count) {
    const int blocks = gridDim.x, place = round % 2 == 0 ? blockIdx.x : blocks - 1 - blockIdx.x;
    return min(round * blocks + place, count);
}

template <int Dim>
__device__ void produce(const Parameters& p, uint32_t base) {
    using Size = Sizes<Dim>;
    const Barriers barriers{base + Size::barriers};
    const int count = p.tiles.count * p.attention.q_heads;
    Turn<stages> key_turn, value_turn;
    uint32_t q_parity = 0;
    for (int round = 0; round * static_cast<int>(gridDim.x) < count; ++round) {
        const int index = tile_of_round(round, count);
        if (index == count) continue;
        const QueryWork w = query_work<Size::rows, keys>(p.attention, p.tiles, p.order, index);
        if (w.begin_block == w.end_block) continue;
        const auto copy_keys = [&](int block) {
            wait(barriers.k_empty(key_turn.stage), key_turn.parity ^ 1);
            arrive_expecting(barriers.k_full(key_turn.stage), Size::k_bytes);
            for (int page = 0; page < pages(Dim); ++page)
                copy_box(base + Size::k + key_turn.stage * Size::k_bytes + page * keys * 128, p.k, barriers.k_full(key_turn.stage),
                        64 * page, w.kv_head, w.sequence.k_begin + block * keys);
            key_turn.advance();
        };
        const auto copy_values = [&](int block) {
            wait(barriers.v_empty(value_turn.stage), value_turn.parity ^ 1);
            arrive_expecting(barriers.v_full(value_turn.stage), Size::k_bytes);
            for (int page = 0; page < pages(Dim); ++page)
                copy_box(base + Size::v + value_turn.stage * Size::k_bytes + page * keys * 128, p.v, barriers.v_full(value_turn.stage),
                         64 * page, w.kv_head, w.sequence.k_begin + block * keys);
            value_turn.advance();
        };
        copy_keys(w.end_block - 1);
        wait(barriers.q_empty(), q_parity ^ 1);
        arrive_expecting(barriers.q_full(), Size::q_bytes);
        for (int page = 0; page < pages(Dim); ++page)
            for (int part = 0; part < Size::consumers; ++part)
                copy_box(base + Size::q + page * Size::rows * 128 + part * 64 * 128, p.q, barriers.q_full(), 64 * page, w.head,
                         w.sequence.q_begin + w.first_row + 64 * part);
        q_parity ^= 1;
        for (int block = w.end_block - 2; block >= w.begin_block; --block) {
            copy_keys(block);
            copy_values(block + 1);
        }
        copy_values(w.begin_block);
    }
}

template <class T, int Dim>
struct Consumer {
    using Size = Sizes<Dim>;
    const Parameters& p;
    const uint32_t base;
    const Barriers barriers{base + Size::barriers};
    const int group = static_cast<int>(threadIdx.x) / 128 - 1, lane = threadIdx.x % 32;
    const int row = 64 * group + static_cast<int>(threadIdx.x) % 128 / 32 * 16;  // the warp's first one in the tile
    const bool speaker = threadIdx.x % 128 == 0;                                 // arrives for its warpgroup
    Turn<stages> key_turn, value_turn;
    uint32_t q_parity = 0;

    __device__ Consumer(const Parameters& parameters, uint32_t shared_base) : p(parameters), base(shared_base) {}

    __device__ void start_scores(float (&scores)[keys / 8][4], int stage) const {
        start_product<T, Dim, Size::rows, keys>(scores, describe(base + Size::q + group * 64 * 128),
                describe(base + Size::k + stage * Size::k_bytes));
    }

    __device__ void start_output(float (&out)[Dim / 8][4], const uint32_t (&probabilities)[keys / 16][4], int stage) const {
        start_sum<T>(out, probabilities, describe(base + Size::v + stage * Size::k_bytes, keys * 128));
    }

    // The copy engine knows only the end of the tensor: what it brought from the next sequence must not meet a zero
    // probability as a NaN.
    __device__ void clear_values_beyond(int valid_rows) const {
        const uint32_t tile = base + Size::v + value_turn.stage * Size::k_bytes;
        const int consumer_threads = 128 * Size::consumers, words = (keys - valid_rows) * 32;
        for (int page = 0; page < pages(Dim); ++page)
            for (int i = threadIdx.x - 128; i < words; i += consumer_threads)
                store_shared(tile + page * keys * 128 + valid_rows * 128 + i * 4, 0);
        publish_shared();
        sync_threads(1, consumer_threads);
    }

    __device__ void tile(const QueryWork& w) {
        const Attention& a = p.attention;
        const Sequence& s = w.sequence;
        const int first_row = w.first_row + row + lane / 4;
        const Visible visible[2] = {visible_keys(a, s, first_row), visible_keys(a, s, first_row + 8)};
        float out[Dim / 8][4] = {};
        Rows rows;
        if (w.begin_block < w.end_block) {
            float scores[keys / 8][4], shrink[2];
            uint32_t probabilities[keys / 16][4];
            const auto keep_probabilities = [&] {
#pragma unroll
                for (int step = 0; step < keys / 16; ++step) pack_a<T>(probabilities[step], scores, step);
            };
            wait(barriers.q_full(), q_parity);
            wait(barriers.k_full(key_turn.stage), key_turn.parity);
            start_scores(scores, key_turn.stage);
            wait_products<0>();
            pin(scores);
            if (speaker) arrive(barriers.k_empty(key_turn.stage));
            key_turn.advance();
            int block = w.end_block - 1;
            if (block >= w.all_see_end || block < w.all_see_begin) mask_scores(scores, visible, block * keys, lane);
            rows.absorb(scores, a.scale_log2, shrink);
            keep_probabilities();
            if (w.end_block * keys > s.k_length && s.k_begin + s.k_length < a.k_tokens) {
                wait(barriers.v_full(value_turn.stage), value_turn.parity);
                clear_values_beyond(s.k_length - block * keys);
            }

            const auto step = [&](auto masked) {
                wait(barriers.k_full(key_turn.stage), key_turn.parity);
                sync_threads(4 + group, 256);  // the groups start their products in turn: one's run under the others' softmax
                start_scores(scores, key_turn.stage);
                wait(barriers.v_full(value_turn.stage), value_turn.parity);
                start_output(out, probabilities, value_turn.stage);
                arrive_threads(4 + (group + 1) % Size::consumers, 256);
                wait_products<1>();
                pin(scores);
                if (speaker) arrive(barriers.k_empty(key_turn.stage));
                if constexpr (decltype(masked)::value) mask_scores(scores, visible, block * keys, lane);
                rows.absorb(scores, a.scale_log2, shrink);
                wait_products<0>();
                pin(out);
                if (speaker) arrive(barriers.v_empty(value_turn.stage));
                keep_probabilities();
                scale_rows(out, shrink);
                key_turn.advance();
                value_turn.advance();
            };
            for (--block; block >= w.begin_block && block >= w.all_see_end; --block) step(std::true_type{});
            for (; block >= w.begin_block && block >= w.all_see_begin; --block) step(std::false_type{});
            for (; block >= w.begin_block; --block) step(std::true_type{});

            if (speaker) arrive(barriers.q_empty());
            q_parity ^= 1;
            wait(barriers.v_full(value_turn.stage), value_turn.parity);
            start_output(out, probabilities, value_turn.stage);
            wait_products<0>();
            pin(out);
            if (speaker) arrive(barriers.v_empty(value_turn.stage));
            value_turn.advance();
        }
        write(w, out, rows);
    }

    __device__ void write(const QueryWork& w, const float (&out)[Dim / 8][4], const Rows& rows) const {
        const Attention& a = p.attention;
        const Sequence& s = w.sequence;
        float factor[2], lse[2];
        rows.finish(a.scale, factor, lse);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int at = w.first_row + row + 8 * half + lane / 4;
            if (lane % 4 == 0 && at < s.q_length) p.lse[w.head * a.q_tokens + s.q_begin + at] = lse[half];
        }
        __syncwarp();  // the last tile's rows are read
        store_rows<T, Size::rows>(base + Size::out, out, factor, row, lane);
        __syncwarp();
        write_rows<Size::rows, Dim, 16>(base + Size::out, p.out.at(s.q_begin + w.first_row, w.head), p.out.token_stride, row,
                                        s.q_length - w.first_row, a.head_dim, lane);
    }
};

template <class T, int Dim>
__global__ void __launch_bounds__(Sizes<Dim>::threads, 1) forward_sm90(const __grid_constant__ Parameters p) {
    using Size = Sizes<Dim>;
    extern __shared__ unsigned char shared[];
    const uint32_t base = (shared_address(shared) + 1023) & ~1023u;
    const Barriers barriers{base + Size::barriers};
    if (threadIdx.x == 0) {
        prefetch(p.q);
        prefetch(p.k);
        prefetch(p.v);
        init_barrier(barriers.q_full(), 1);
        init_barrier(barriers.q_empty(), Size::consumers);
        for (int stage = 0; stage < stages; ++stage) {
            init_barrier(barriers.k_full(stage), 1);
            init_barrier(barriers.v_full(stage), 1);
            init_barrier(barriers.k_empty(stage), Size::consumers);
            init_barrier(barriers.v_empty(stage), Size::consumers);
        }
        publish_barriers();
    }
    __syncthreads();

    if (threadIdx.x < 128) {
        shrink_registers<Size::producer_registers>();
        if (threadIdx.x == 0) produce<Dim>(p, base);
    } else {
        grow_registers<Size::consumer_registers>();
        Consumer<T, Dim> consumer(p, base);
        if (consumer.group == Size::consumers - 1) arrive_threads(4, 256);  // the first group goes first
        const int count = p.tiles.count * p.attention.q_heads;
        for (int round = 0; round * static_cast<int>(gridDim.x) < count; ++round) {
            const int index = tile_of_round(round, count);
            if (index < count) consumer.tile(query_work<Size::rows, keys>(p.attention, p.tiles, p.order, index));
        }
    }
}

template <class T, int Dim>
void start(const tn_attention_forward_args& args, cudaStream_t stream) {
    using Size = Sizes<Dim>;
    const tn_attention_shape& s = args.shape;
    const int multiprocessors = current_device().multiprocessors;
    Parameters p{tensor_map(args.q_TNH, s.dtype, s.q_tokens, s.q_heads, s.head_dim, 64),
                 tensor_map(args.k_TMH, s.dtype, s.k_tokens, s.kv_heads, s.head_dim, keys),
                 tensor_map(args.v_TMH, s.dtype, s.k_tokens, s.kv_heads, s.head_dim, keys),
                 attention(s), matrix(args.out_TNH), args.lse_NT, l2_order(4 * s.k_tokens * s.head_dim, s.q_heads,
                         s.q_heads / s.kv_heads, multiprocessors), {}};
    for (const Tiles& tiles : cut_into_tiles(s, Axis::queries, Size::rows)) {
        p.tiles = tiles;
        launch(forward_sm90<T, Dim>, "attention forward", std::min<int64_t>(multiprocessors, int64_t{tiles.count} * s.q_heads),
                Size::threads, Size::aligned_bytes, stream, p);
    }
}

template <class T>
void start(const tn_attention_forward_args& args, cudaStream_t stream) {
    if (args.shape.head_dim == 64) start<T, 64>(args, stream);
    else start<T, 128>(args, stream);
}

}  // namespace

void hopper_attention_forward(const tn_attention_forward_args& args, cudaStream_t stream) {
    if (args.shape.dtype == TN_BFLOAT16) start<Bf16>(args, stream);
    else start<Fp16>(args, stream);
}

}  // namespace trainer::cuda
