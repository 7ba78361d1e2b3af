// Forward attention for Hopper: one warpgroup feeds keys and values through the copy engine, the others own 64 query rows of one head
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
    CUtensorMap q, k, v, out;
    Attention attention;
    Matrix out_rows;
    float* lse;
    Order order;
    Shares shares;
    Tiles tiles;
};

constexpr int stages = 2, keys = 128, no_tile = -1;

template <int Dim>
using Work = QueryWork<Dim == 64 ? 3 : 2>;

template <int Dim>
struct Sizes {
    static constexpr int consumers = Dim == 64 ? 3 : 2, rows = 64 * consumers, threads = 128 * (consumers + 1);
    // Together what the block was launched with: 128 registers a thread for four warpgroups, 168 for three.
    static constexpr int producer_registers = Dim == 64 ? 32 : 40, consumer_registers = Dim == 64 ? 160 : 232;
    static constexpr int q_bytes = tile_bytes(rows, Dim), k_bytes = tile_bytes(keys, Dim);
    // Offsets in shared memory.
    static constexpr int q = 0, out = stages * q_bytes, k = out + q_bytes, v = k + stages * k_bytes, barriers = v + stages * k_bytes;
    static constexpr int works = barriers + 16 * 8, bytes = works + stages * sizeof(Work<Dim>), aligned_bytes = bytes + 1024;
};

// Addresses of the barriers. full: the copy engine has written; empty: every consumer has read.
struct Barriers {
    uint32_t first;

    __device__ uint32_t q_full(int stage) const { return first + 8 * stage; }
    __device__ uint32_t q_empty(int stage) const { return first + 8 * (stages + stage); }
    __device__ uint32_t k_full(int stage) const { return first + 8 * (2 * stages + stage); }
    __device__ uint32_t k_empty(int stage) const { return first + 8 * (3 * stages + stage); }
    __device__ uint32_t v_full(int stage) const { return first + 8 * (4 * stages + stage); }
    __device__ uint32_t v_empty(int stage) const { return first + 8 * (5 * stages + stage); }
    __device__ uint32_t v_landed(int stage) const { return first + 8 * (6 * stages + stage); }  // but not yet full: see clear_foreign_values
    __device__ uint32_t work_full(int stage) const { return first + 8 * (7 * stages + stage); }

    __device__ void init(int consumers) const {
        for (int stage = 0; stage < stages; ++stage) {
            for (uint32_t barrier : {work_full(stage), q_full(stage), k_full(stage), v_full(stage), v_landed(stage)}) init_barrier(barrier, 1);
            for (uint32_t barrier : {k_empty(stage), v_empty(stage)}) init_barrier(barrier, consumers);
            init_barrier(q_empty(stage), 4 * consumers + 1);  // every warp says it, and feed_keys, which reads what the tile is
        }
        publish_barriers();
    }
};

// Calls with the index of every tile that this thread block takes. Tiles come in order of falling work; where p.shares says nothing,
// turning the order round in every other round gives each thread block a like share.
template <class Take>
__device__ void for_each_tile(const Parameters& p, const Take& take) {
    for (int i = 0; i < p.shares.count; ++i) {
        const Share& share = p.shares.share[i];
        const int place = static_cast<int>(blockIdx.x) - share.block;
        if (0 <= place && place < share.count) take(share.first + place);
    }
    if (p.shares.count > 0) return;
    const int count = p.tiles.count * p.attention.kv_heads, blocks = gridDim.x;
    for (int round = 0; round * blocks < count; ++round) {
        const int index = round * blocks + (round % 2 == 0 ? blockIdx.x : blocks - 1 - blockIdx.x);
        if (index < count) take(index);
    }
}

// Whether the copy engine brings rows of the next sequence with the last block of keys.
template <int Parts>
__device__ bool brings_foreign_rows(const Attention& a, const QueryWork<Parts>& w) {
    return w.end_block * keys > w.sequence.k_length && w.sequence.k_begin + w.sequence.k_length < a.k_tokens;
}

// One thread says what the next tile is, no_tile after the last, and brings its queries.
template <int Dim>
__device__ void feed_queries(const Parameters& p, uint32_t base, Work<Dim>* works) {
    using Size = Sizes<Dim>;
    const Barriers barriers{base + Size::barriers};
    Turn<stages> turn;
    for_each_tile(p, [&](int index) {
        const Work<Dim> w = query_work<Size::consumers, keys>(p.attention, p.tiles, p.order, index);
        const uint32_t q_full = barriers.q_full(turn.stage);
        wait(barriers.q_empty(turn.stage), turn.parity ^ 1);
        works[turn.stage] = w;
        arrive(barriers.work_full(turn.stage));
        if (w.begin_block < w.end_block) {
            arrive_expecting(q_full, Size::q_bytes);
#pragma unroll
            for (int i = 0; i < Size::consumers; ++i)
                for (int page = 0; page < pages(Dim); ++page)
                    copy_box(base + Size::q + turn.stage * Size::q_bytes + page * Size::rows * 128 + i * 64 * 128, p.q, q_full, 64 * page,
                             w.part[i].head, w.sequence.q_begin + w.part[i].first_row);
        } else {
            arrive(q_full);
        }
        turn.advance();
    });
    wait(barriers.q_empty(turn.stage), turn.parity ^ 1);
    works[turn.stage].kv_head = no_tile;
    arrive(barriers.work_full(turn.stage));
    arrive(barriers.q_full(turn.stage));
}

// Another one brings keys and values.
template <int Dim>
__device__ void feed_keys(const Parameters& p, uint32_t base, const Work<Dim>* works) {
    using Size = Sizes<Dim>;
    const Barriers barriers{base + Size::barriers};
    Turn<stages> work_turn, key_turn, value_turn;
    for (;; work_turn.advance()) {
        wait(barriers.work_full(work_turn.stage), work_turn.parity);
        const Work<Dim>& w = works[work_turn.stage];  // read anew where it is needed: registers are few
        if (w.kv_head == no_tile) return;
        const auto copy_block = [&](uint32_t to, const CUtensorMap& map, uint32_t barrier, int block) {
            arrive_expecting(barrier, Size::k_bytes);
            for (int page = 0; page < pages(Dim); ++page)
                copy_box(to + page * keys * 128, map, barrier, 64 * page, w.kv_head, w.sequence.k_begin + block * keys);
        };
        const auto copy_keys = [&](int block) {
            wait(barriers.k_empty(key_turn.stage), key_turn.parity ^ 1);
            copy_block(base + Size::k + key_turn.stage * Size::k_bytes, p.k, barriers.k_full(key_turn.stage), block);
            key_turn.advance();
        };
        const auto copy_values = [&](int block) {
            wait(barriers.v_empty(value_turn.stage), value_turn.parity ^ 1);
            const bool foreign = block == w.end_block - 1 && brings_foreign_rows(p.attention, w);
            copy_block(base + Size::v + value_turn.stage * Size::k_bytes, p.v,
                       foreign ? barriers.v_landed(value_turn.stage) : barriers.v_full(value_turn.stage), block);
            value_turn.advance();
        };
        if (w.begin_block < w.end_block) {
            copy_keys(w.end_block - 1);
            for (int block = w.end_block - 2; block >= w.begin_block; --block) {
                copy_keys(block);
                copy_values(block + 1);
            }
            copy_values(w.begin_block);
        }
        arrive(barriers.q_empty(work_turn.stage));
    }
}

// The copy engine knows only the end of the tensor: what it brought from the next sequence must not meet a zero probability as a
// NaN. One warp makes it zeros, and only then lets the consumers have the values.
template <int Dim>
__device__ void clear_foreign_values(const Parameters& p, uint32_t base) {
    using Size = Sizes<Dim>;
    const Barriers barriers{base + Size::barriers};
    const int lane = threadIdx.x % 32;
    int blocks = 0;         // that came before the tile's
    uint32_t parities = 0;  // a bit for each stage
    for_each_tile(p, [&](int index) {
        const Work<Dim> w = query_work<Size::consumers, keys>(p.attention, p.tiles, p.order, index);
        if (w.begin_block < w.end_block && brings_foreign_rows(p.attention, w)) {
            const int stage = blocks % stages, valid_rows = w.sequence.k_length - (w.end_block - 1) * keys;
            wait(barriers.v_landed(stage), parities >> stage & 1);
            parities ^= 1u << stage;
            for (int page = 0; page < pages(Dim); ++page)
                for (int i = valid_rows * 8 + lane; i < keys * 8; i += 32)
                    clear_shared_16(base + Size::v + stage * Size::k_bytes + page * keys * 128 + i * 16);
            publish_shared();
            __syncwarp();
            if (lane == 0) arrive(barriers.v_full(stage));
        }
        blocks += w.end_block - w.begin_block;
    });
}

// One warpgroup. Its last product of a tile runs beside the first of the next one, so that tiles follow one another as blocks of keys
// do: short sequences are many tiles of few blocks. Where this thread belongs is worked out anew in every step, and what its tile
// is, read anew: there are no registers to keep it in.
template <class T, int Dim>
struct Consumer {
    using Size = Sizes<Dim>;

    const Parameters& p;
    const uint32_t base;
    const Work<Dim>* const works;

    __device__ Consumer(const Parameters& parameters, uint32_t shared_base, const Work<Dim>* shared_works)
        : p(parameters), base(shared_base), works(shared_works) {}

    __device__ void run() const {
        const Attention& a = p.attention;
        const Barriers barriers{base + Size::barriers};
        float out[Dim / 8][4];
        uint32_t probabilities[keys / 16][4];
        Rows rows;
        int tiles = 0, blocks = 0;  // taken up so far
        bool open = false;          // the last product of the tile before this one is still to come

        // The groups start their products in turn: one's run under the others' softmax. The first group goes first.
        if (group() == Size::consumers - 1) arrive_threads(4, 256);
        const auto start_scores = [&](float (&scores)[keys / 8][4]) {
            wait(barriers.k_full(blocks % stages), blocks / stages % 2);
            sync_threads(4 + group(), 256);
            start_product<T, Dim, Size::rows, keys>(scores, describe(base + Size::q + tiles % stages * Size::q_bytes + group() * 64 * 128),
                    describe(base + Size::k + blocks % stages * Size::k_bytes));
        };
        const auto start_output = [&] {  // of the block before this one
            wait(barriers.v_full((blocks - 1) % stages), (blocks - 1) / stages % 2);
            start_sum<T>(out, probabilities, describe(base + Size::v + (blocks - 1) % stages * Size::k_bytes, keys * 128));
        };
        const auto give_turn = [&] { arrive_threads(4 + (group() + 1) % Size::consumers, 256); };
        const auto give_back = [&](uint32_t barrier) {
            if (thread() % 128 == 0) arrive(barrier);
        };
        const auto keep_probabilities = [&](const float (&scores)[keys / 8][4]) {
#pragma unroll
            for (int step = 0; step < keys / 16; ++step) pack_a<T>(probabilities[step], scores, step);
        };
        const auto mask = [&](float (&scores)[keys / 8][4], const Work<Dim>& w, int block) {
            const int lane = thread() % 32, row = w.part[group()].first_row + warp_row() + lane / 4;
            mask_scores(scores, {visible_keys(a, w.sequence, row), visible_keys(a, w.sequence, row + 8)}, block * keys, lane);
        };
        const auto close = [&] {
            start_output();
            wait_products<0>();
            pin(out);
            give_back(barriers.v_empty((blocks - 1) % stages));
            write(tiles - 1, out, rows);
            open = false;
        };

        for (;; ++tiles) {
            wait(barriers.q_full(tiles % stages), tiles / stages % 2);
            const Work<Dim>& w = works[tiles % stages];
            if (w.kv_head == no_tile) break;
            int block = w.end_block - 1;
            const auto masked = [&] { return block >= w.all_see_end || block < w.all_see_begin; };

            if (block < w.begin_block) {
                if (open) close();
                clear(out);
                write(tiles, out, {});
                continue;
            }
            float scores[keys / 8][4], shrink[2];
            start_scores(scores);
            if (open) {
                start_output();
                give_turn();
                wait_products<0>();
                pin(scores);
                pin(out);
                give_back(barriers.k_empty(blocks % stages));
                give_back(barriers.v_empty((blocks - 1) % stages));
                write(tiles - 1, out, rows);
            } else {
                give_turn();
                wait_products<0>();
                pin(scores);
                give_back(barriers.k_empty(blocks % stages));
            }
            if (masked()) mask(scores, w, block);
            rows = {};
            rows.absorb(scores, a.scale_log2, shrink);
            keep_probabilities(scores);
            open = true;
            clear(out);
            ++blocks;

            const auto step = [&](auto is_masked) {
                float scores[keys / 8][4], shrink[2];
                start_scores(scores);
                start_output();
                give_turn();
                wait_products<1>();
                pin(scores);
                give_back(barriers.k_empty(blocks % stages));
                if constexpr (decltype(is_masked)::value) mask(scores, w, block);
                rows.absorb(scores, a.scale_log2, shrink);
                wait_products<0>();
                pin(out);
                give_back(barriers.v_empty((blocks - 1) % stages));
                keep_probabilities(scores);
                scale_rows(out, shrink);
                ++blocks;
            };
            const int begin = w.begin_block, all_see_begin = max(begin, w.all_see_begin), all_see_end = max(begin, w.all_see_end);
            for (--block; block >= all_see_end; --block) step(std::true_type{});
            for (; block >= all_see_begin; --block) step(std::false_type{});
            for (; block >= begin; --block) step(std::true_type{});
        }
        if (open) close();
        if (thread() % 32 == 0) wait_bulk_reads();
    }

    // At head_dim 64 the compiler is told its range: fewer instructions, 1 % faster. At 128 it would be 1 % slower.
    __device__ static int thread() {
        const int x = thread_index();
        if constexpr (Dim == 64) __builtin_assume(0 <= x && x < Size::threads);
        return x;
    }
    __device__ static int group() { return thread() / 128 - 1; }
    __device__ static int warp_row() { return thread() % 128 / 32 * 16; }  // of the warpgroup's 64

    __device__ static void clear(float (&out)[Dim / 8][4]) {
#pragma unroll
        for (int n = 0; n < Dim / 8; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) out[n][e] = 0;
    }

    // The output of a tile, whose queries are given back. Every warp sends its own 16 rows: by the copy engine, unless the sequence
    // ends within them.
    __device__ void write(int tile, float (&out)[Dim / 8][4], const Rows& rows) const {
        const Attention& a = p.attention;
        const Work<Dim>& w = works[tile % stages];
        const QueryPart part = w.part[group()];
        const int lane = thread() % 32, row = part.first_row + warp_row(), token = w.sequence.q_begin + row;
        const int valid_rows = w.sequence.q_length - row;
        float factor[2], lse[2];
        rows.finish(a.scale, factor, lse);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int at = 8 * half + lane / 4;
            if (lane % 4 == 0 && at < valid_rows) p.lse[part.head * a.q_tokens + token + at] = lse[half];
        }
        scale_rows(out, factor);
        const uint32_t staged = base + Size::out + (64 * group() + warp_row()) * 128;
        if (lane == 0) wait_bulk_reads();
        __syncwarp();
#pragma unroll
        for (int step = 0; step < Dim / 16; ++step) {
            uint32_t packed[4];
            pack_a<T>(packed, out, step);
            store_matrices(step_address<Size::rows>(a_lane(staged, lane), 0, step), packed);
        }
        publish_shared();
        __syncwarp();
        // No branch but for one lane: after any other, ptxas takes descriptors for different from lane to lane.
        const bool whole = valid_rows >= 16;
        if (lane == 0 && whole) {
            for (int page = 0; page < pages(Dim); ++page) store_box(p.out, staged + page * Size::rows * 128, 64 * page, part.head, token);
            close_bulk_group();
        }
        write_rows<Size::rows, Dim, 16>(staged, p.out_rows.at(token, part.head), p.out_rows.token_stride, 0, whole ? 0 : valid_rows,
                                        a.head_dim, lane);
        if (lane == 0) arrive(Barriers{base + Size::barriers}.q_empty(tile % stages));
    }
};

template <class T, int Dim>
__global__ void __launch_bounds__(Sizes<Dim>::threads, 1) forward_sm90(const __grid_constant__ Parameters p) {
    using Size = Sizes<Dim>;
    extern __shared__ unsigned char shared[];
    const uint32_t unaligned = shared_address(shared), base = (unaligned + 1023) & ~1023u;
    Work<Dim>* works = reinterpret_cast<Work<Dim>*>(shared + (base - unaligned) + Size::works);
    if (threadIdx.x == 0) {
        prefetch(p.q);
        prefetch(p.k);
        prefetch(p.v);
        prefetch(p.out);
        Barriers{base + Size::barriers}.init(Size::consumers);
    }
    __syncthreads();

    if (threadIdx.x < 128) {
        shrink_registers<Size::producer_registers>();
        if (threadIdx.x == 0) feed_keys<Dim>(p, base, works);
        if (threadIdx.x == 32) feed_queries<Dim>(p, base, works);
        if (threadIdx.x / 32 == 2) clear_foreign_values<Dim>(p, base);
    } else {
        grow_registers<Size::consumer_registers>();
        Consumer<T, Dim>(p, base, works).run();
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
                 tensor_map(args.out_TNH, s.dtype, s.q_tokens, s.q_heads, s.head_dim, 16),
                 attention(s), matrix(args.out_TNH), args.lse_NT, l2_order(4 * s.k_tokens * s.head_dim, s.kv_heads, multiprocessors), {}, {}};
    for (const Tiles& tiles : cut_into_tiles(s, Axis::queries, query_cut<Size::consumers>(s.q_heads / s.kv_heads))) {
        p.tiles = tiles;
        p.shares = shares_of(p.order, tiles, s.kv_heads, [&](int32_t tile) {
            const Work<Dim> w = query_work<Size::consumers, keys>(p.attention, tiles.cut, find_tile(tiles, Axis::queries, tile), 0);
            return w.end_block - w.begin_block;
        });
        launch(forward_sm90<T, Dim>, "attention forward", std::min<int64_t>(multiprocessors, int64_t{tiles.count} * s.kv_heads),
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
