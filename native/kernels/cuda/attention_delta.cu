// What surrounds the backward kernels, row by row: delta before them, the rounding of a float32 dq after them.
#include "attention.h"
#include "launch.h"
#include "ptx.cuh"
#include "softmax.cuh"

namespace trainer::cuda {

namespace {

constexpr int threads = 128, row_threads = 8, tile_rows = 64;

// delta is the mean of dp under the row's probabilities. out * dout sums to the same, but out was rounded: where a row puts all
// its weight on one key, dp - delta is then the rounding and nothing else. Rows of so few keys are computed by the definition.
constexpr int few_keys = 16;

struct Parameters {
    Attention attention;
    Matrix q, k, v, out, dout;
    const float* lse;
    RowFloats delta;
    float* dq_NTH;
    Tiles tiles;
};

__device__ uint4 load_16(const uint16_t* from, bool valid) {
    return valid ? *reinterpret_cast<const uint4*>(from) : uint4{0, 0, 0, 0};
}

// A row is shared by row_threads threads, each with one or two pieces of 16 bytes.
template <int Pieces>
__device__ void load_row(uint4 (&x)[Pieces], const Matrix& from, int64_t token, int head, int head_dim, bool valid) {
    const uint16_t* row = from.at(token, head);
#pragma unroll
    for (int i = 0; i < Pieces; ++i) {
        const int column = (threadIdx.x % row_threads + i * row_threads) * 8;
        x[i] = load_16(row + column, valid && column < head_dim);
    }
}

// Over the whole row; the whole warp comes here.
template <class T, int Pieces>
__device__ float row_dot(const uint4 (&x)[Pieces], const uint4 (&y)[Pieces]) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < Pieces; ++i) {
        const uint32_t xs[4] = {x[i].x, x[i].y, x[i].z, x[i].w}, ys[4] = {y[i].x, y[i].y, y[i].z, y[i].w};
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const float2 a = unpack<T>(xs[j]), b = unpack<T>(ys[j]);
            sum = fmaf(a.x, b.x, fmaf(a.y, b.y, sum));
        }
    }
#pragma unroll
    for (int lanes = row_threads / 2; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
    return sum;
}

// By the definition, for a row that sees at most few_keys.
template <class T, int Pieces>
__device__ float exact_delta(const Parameters& p, const Sequence& s, int row, int head) {
    const Attention& a = p.attention;
    const int kv_head = head / (a.q_heads / a.kv_heads);
    const bool valid = row < s.q_length;
    const int64_t token = s.q_begin + row;
    const Visible seen = visible_keys(a, s, row);
    const float minus_lse = valid ? minus_lse_log2(p.lse[head * a.q_tokens + token]) : -INFINITY;
    uint4 q[Pieces], dout[Pieces], k[Pieces], v[Pieces];
    load_row(q, p.q, token, head, a.head_dim, valid);
    load_row(dout, p.dout, token, head, a.head_dim, valid);
    float sum = 0, weighted = 0;
    // The loads of two keys overlap; with four, some chips spill.
#pragma unroll 2
    for (int i = 0; i < few_keys; ++i) {
        const int64_t key = s.k_begin + seen.from + i;
        const bool sees = valid && seen.from + i < seen.end;
        load_row(k, p.k, key, kv_head, a.head_dim, sees);
        load_row(v, p.v, key, kv_head, a.head_dim, sees);
        const float score = row_dot<T>(q, k), dp = row_dot<T>(dout, v);
        const float weight = sees ? exp2_fast(fmaf(score, a.scale_log2, minus_lse)) : 0.f;
        sum += weight;
        weighted = fmaf(weight, dp, weighted);
    }
    return __fdividef(weighted, sum);
}

template <class T, int Pieces>
__global__ void __launch_bounds__(threads) delta(const __grid_constant__ Parameters p) {
    const Attention& a = p.attention;
    const int head = blockIdx.x % a.q_heads;
    // The lowest levels first: under a causal mask they have the rows that take longest.
    const Tile tile = find_tile(p.tiles, {tile_rows}, Axis::queries, p.tiles.count - 1 - static_cast<int>(blockIdx.x) / a.q_heads);
    const Sequence& s = tile.sequence;
    constexpr int pass_rows = threads / row_threads, passes = tile_rows / pass_rows;
    const int first_row = tile.level * tile_rows, my_row = first_row + static_cast<int>(threadIdx.x) / row_threads;
    const bool speaker = threadIdx.x % row_threads == 0;
    uint4 out[passes][Pieces], dout[passes][Pieces];
#pragma unroll
    for (int pass = 0; pass < passes; ++pass) {
        const int row = my_row + pass * pass_rows;
        load_row(out[pass], p.out, s.q_begin + row, head, a.head_dim, row < s.q_length);
        load_row(dout[pass], p.dout, s.q_begin + row, head, a.head_dim, row < s.q_length);
    }
    if (p.dq_NTH) {
        const int valid_rows = min(tile_rows, s.q_length - first_row);
        float4* dq = reinterpret_cast<float4*>(p.dq_NTH + (head * a.q_tokens + s.q_begin + first_row) * a.head_dim);
        for (int i = threadIdx.x; i < valid_rows * a.head_dim / 4; i += threads) dq[i] = make_float4(0, 0, 0, 0);
    }
#pragma unroll
    for (int pass = 0; pass < passes; ++pass) {
        const int row = my_row + pass * pass_rows;
        const float result = row_dot<T>(out[pass], dout[pass]);
        if (speaker && row < s.q_length) p.delta.at(s.q_begin + row, head) = result;
    }

    const auto seen_keys = [&](int row) {
        const Visible seen = visible_keys(a, s, row);
        return seen.end - seen.from;
    };
#pragma unroll 1
    for (int pass = 0; pass < passes; ++pass) {
        // From row to row the number of keys seen only grows, or only falls.
        const int first = first_row + pass * pass_rows, row = my_row + pass * pass_rows;
        if (min(seen_keys(first), seen_keys(first + pass_rows - 1)) > few_keys) continue;
        const float result = exact_delta<T, Pieces>(p, s, row, head);
        if (const int seen = seen_keys(row); speaker && row < s.q_length && seen > 0 && seen <= few_keys)
            p.delta.at(s.q_begin + row, head) = result;
    }
}

struct RoundParameters {
    const float* dq_NTH;
    Matrix dq;
    int64_t tokens, count;  // count: of pieces of eight elements
    int32_t head_dim;
    float scale;
};

constexpr int round_pieces = 4;

template <class T, bool InLaneOrder>
__global__ void __launch_bounds__(threads) round_dq(const __grid_constant__ RoundParameters p) {
    wait_for_last_kernel();
    const int row_pieces = p.head_dim / 8;
#pragma unroll
    for (int i = 0; i < round_pieces; ++i) {
        const int64_t piece = (int64_t{blockIdx.x} * round_pieces + i) * threads + threadIdx.x;
        if (piece >= p.count) return;
        const int64_t row = piece / row_pieces;
        const int at = static_cast<int>(piece % row_pieces);
        // Lane j of four holds of 16 columns 2j, 2j + 1, 2j + 8 and 2j + 9. Half of 16 columns lie in order.
        const bool in_lane_order = InLaneOrder && (at | 1) < row_pieces;
        const float2* from = reinterpret_cast<const float2*>(p.dq_NTH) + 4 * (in_lane_order ? piece - at % 2 : piece) +
                             (in_lane_order ? at % 2 : 0);
        uint32_t two[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const float2 x = from[in_lane_order ? 2 * j : j];
            two[j] = pack<T>(x.x * p.scale, x.y * p.scale);
        }
        *reinterpret_cast<uint4*>(p.dq.at(row % p.tokens, row / p.tokens) + at * 8) = uint4{two[0], two[1], two[2], two[3]};
    }
}

}  // namespace

void attention_delta(const tn_attention_backward_args& args, const RowFloats& result, float* dq_NTH, cudaStream_t stream) {
    const tn_attention_shape& s = args.shape;
    Parameters p{attention(s), matrix(args.q_TNH), matrix(args.k_TMH), matrix(args.v_TMH), matrix(args.out_TNH), matrix(args.dout_TNH),
                 args.lse_NT, result, dq_NTH, {}};
    const auto kernel = s.head_dim <= 64 ? (s.dtype == TN_BFLOAT16 ? delta<Bf16, 1> : delta<Fp16, 1>)
                                         : (s.dtype == TN_BFLOAT16 ? delta<Bf16, 2> : delta<Fp16, 2>);
    for (const Tiles& tiles : cut_into_tiles(s, Axis::queries, {tile_rows})) {
        p.tiles = tiles;
        launch(kernel, "attention delta", int64_t{tiles.count} * s.q_heads, threads, 0, stream, p);
    }
}

void attention_round_dq(const tn_attention_backward_args& args, const float* dq_NTH, bool in_lane_order, cudaStream_t stream) {
    const tn_attention_shape& s = args.shape;
    if (s.q_tokens == 0) return;
    const int64_t count = s.q_tokens * s.q_heads * (s.head_dim / 8), block = threads * round_pieces;
    const RoundParameters p{dq_NTH, matrix(args.dq_TNH), s.q_tokens, count, s.head_dim, s.scale};
    const auto kernel = in_lane_order ? (s.dtype == TN_BFLOAT16 ? round_dq<Bf16, true> : round_dq<Fp16, true>)
                                      : (s.dtype == TN_BFLOAT16 ? round_dq<Bf16, false> : round_dq<Fp16, false>);
    launch(kernel, "attention rounding of dq", (count + block - 1) / block, threads, 0, stream, p, {1, !in_lane_order});
}

}  // namespace trainer::cuda
