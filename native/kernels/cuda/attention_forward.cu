// Forward attention for every chip with mma.sync (sm_80 and later).
// A thread block owns 128 query rows, a warp 32 of them; keys stream from the right-most visible block to the left.
#include "attention.h"
#include "launch.h"
#include "shared_tile.cuh"
#include "softmax.cuh"

namespace trainer::cuda {

namespace {

struct Parameters {
    Attention attention;
    Matrix q, k, v, out;
    float* lse;
    Tiles tiles;
};

constexpr int warps = 4, threads = 32 * warps, tile_rows = 128, warp_rows = 32;

// What a thread block knows of its tile. It lies in shared memory: in registers, beside the accumulators, there is no room.
struct Block {
    Sequence sequence;
    const uint16_t *k, *v;  // the sequence's first key and value of the head
    int first_row;
    int all_see_from, all_see_end;  // keys that every row sees
};

template <int Dim>
struct Sizes {
    static constexpr int keys = Dim == 64 ? 112 : Dim == 96 ? 64 : 48;  // as many as fit in the registers
    static constexpr int k_bytes = tile_bytes(keys, Dim), k = tile_bytes(tile_rows, Dim), v = k + 2 * k_bytes;
    static constexpr int block = v + k_bytes, bytes = block + sizeof(Block);
};

template <class T, int Dim>
__global__ void __launch_bounds__(threads, 2) forward(const __grid_constant__ Parameters p) {
    constexpr int keys = Sizes<Dim>::keys;
    extern __shared__ __align__(1024) unsigned char shared[];
    const uint32_t q_tile = shared_address(shared), k_tile = q_tile + Sizes<Dim>::k, v_tile = q_tile + Sizes<Dim>::v;
    const Attention& a = p.attention;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int head = blockIdx.x % a.q_heads, kv_head = head / (a.q_heads / a.kv_heads);
    Block& block = *reinterpret_cast<Block*>(shared + Sizes<Dim>::block);
    int begin = 0, end = 0;  // of the blocks of keys to visit
    {
        const Tile tile = find_tile(p.tiles, Axis::queries, blockIdx.x / a.q_heads);
        const Sequence& s = tile.sequence;
        const int first_row = tile.level * tile_rows, last_row = min(first_row + tile_rows, s.q_length) - 1;
        const Visible first = visible_keys(a, s, first_row), last = visible_keys(a, s, last_row);
        begin = first.from / keys;
        end = first.from < last.end ? (last.end + keys - 1) / keys : begin;
        if (threadIdx.x == 0) block = {s, p.k.at(s.k_begin, kv_head), p.v.at(s.k_begin, kv_head), first_row, last.from, first.end};
        copy_tile<tile_rows, Dim, threads>(q_tile, p.q.at(s.q_begin + first_row, head), p.q.token_stride, s.q_length - first_row,
                a.head_dim, thread_index());
        close_copy_group();  // what is in no group, nobody waits for
    }
    __syncthreads();
    const auto copy_block = [&](uint32_t to, const uint16_t* from, int64_t stride, int at) {
        copy_tile<keys, Dim, threads>(to, from + int64_t{at} * keys * stride, stride, block.sequence.k_length - at * keys,
                a.head_dim, thread_index());
        close_copy_group();
    };
    if (begin < end) copy_block(k_tile + (end - 1) % 2 * Sizes<Dim>::k_bytes, block.k, p.k.token_stride, end - 1);

    const uint32_t q_lane = a_lane(q_tile + warp * warp_rows * 128, lane), v_lane = a_lane(v_tile, lane);
    float o[2][Dim / 8][4] = {};
    Rows row_state[2];

    for (int at = end - 1; at >= begin; --at) {
        wait_copy_groups<0>();
        __syncthreads();  // this block's keys are here, and every warp is done with the previous values
        copy_block(v_tile, block.v, p.v.token_stride, at);
        if (at > begin) copy_block(k_tile + (at - 1) % 2 * Sizes<Dim>::k_bytes, block.k, p.k.token_stride, at - 1);
        else close_copy_group();

        const uint32_t k_lane = b_lane(k_tile + at % 2 * Sizes<Dim>::k_bytes, lane);
        float scores[2][keys / 8][4] = {};
#pragma unroll 2
        for (int step = 0; step < Dim / 16; ++step) {
            uint32_t q_part[2][4];
            load_a<tile_rows>(q_part[0], q_lane, 0, step);
            load_a<tile_rows>(q_part[1], q_lane, 1, step);
#pragma unroll
            for (int n = 0; n < keys / 16; ++n) {
                uint32_t k_part[4];
                load_b<keys>(k_part, k_lane, n, step);
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    mma<T>(scores[i][2 * n], q_part[i], k_part[0], k_part[1]);
                    mma<T>(scores[i][2 * n + 1], q_part[i], k_part[2], k_part[3]);
                }
            }
        }
        wait_copy_groups<1>();
        __syncthreads();  // the values are here

        const bool masked = at * keys < block.all_see_from || (at + 1) * keys > block.all_see_end;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            float shrink[2];
            if (masked) {
                const int row = block.first_row + warp * warp_rows + 16 * i + lane / 4;
                mask_scores(scores[i], {visible_keys(a, block.sequence, row), visible_keys(a, block.sequence, row + 8)}, at * keys, lane);
            }
            row_state[i].absorb(scores[i], a.scale_log2, shrink);
            scale_rows(o[i], shrink);
        }

#pragma unroll
        for (int step = 0; step < keys / 16; ++step) {
            uint32_t probabilities[2][4];
            pack_a<T>(probabilities[0], scores[0], step);
            pack_a<T>(probabilities[1], scores[1], step);
#pragma unroll
            for (int n = 0; n < Dim / 16; ++n) {
                uint32_t v_part[4];
                load_b_transposed<keys>(v_part, v_lane, step, n);
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    mma<T>(o[i][2 * n], probabilities[i], v_part[0], v_part[1]);
                    mma<T>(o[i][2 * n + 1], probabilities[i], v_part[2], v_part[3]);
                }
            }
        }
    }

    wait_copy_groups<0>();
    __syncthreads();  // also when there was no block: the copy of q must not land on the output below
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        float factor[2], lse[2];
        row_state[i].finish(a.scale, factor, lse);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int row = block.first_row + warp * warp_rows + 16 * i + 8 * half + lane / 4;
            if (lane % 4 == 0 && row < block.sequence.q_length) p.lse[head * a.q_tokens + block.sequence.q_begin + row] = lse[half];
        }
        store_rows<T, tile_rows, Dim / 8>(q_tile, o[i], factor, warp * warp_rows + 16 * i, lane);
    }
    __syncwarp();
    write_rows<tile_rows, Dim, warp_rows>(q_tile, p.out.at(block.sequence.q_begin + block.first_row, head), p.out.token_stride,
            warp * warp_rows, block.sequence.q_length - block.first_row, a.head_dim, lane);
}

template <class T, int Dim>
void start(const tn_attention_forward_args& args, cudaStream_t stream) {
    const tn_attention_shape& shape = args.shape;
    Parameters p{attention(shape), matrix(args.q_TNH), matrix(args.k_TMH), matrix(args.v_TMH), matrix(args.out_TNH), args.lse_NT, {}};
    for (const Tiles& tiles : cut_into_tiles(shape, Axis::queries, {tile_rows})) {
        p.tiles = tiles;
        launch(forward<T, Dim>, "attention forward", int64_t{tiles.count} * shape.q_heads, threads, Sizes<Dim>::bytes, stream, p);
    }
}

template <class T>
void start(const tn_attention_forward_args& args, cudaStream_t stream) {
    if (args.shape.head_dim <= 64) start<T, 64>(args, stream);
    else if (args.shape.head_dim <= 96) start<T, 96>(args, stream);
    else start<T, 128>(args, stream);
}

}  // namespace

void portable_attention_forward(const tn_attention_forward_args& args, cudaStream_t stream) {
    if (args.shape.dtype == TN_BFLOAT16) start<Bf16>(args, stream);
    else start<Fp16>(args, stream);
}

}  // namespace trainer::cuda
