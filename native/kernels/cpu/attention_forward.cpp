// FlashAttention forward: one task per (64 queries, head) runs over the keys once with the online softmax.
#include "attention_tile.h"
#include "ops.h"

#include <cmath>
#include <omp.h>

namespace trainer::TN_ISA {

namespace {

// Working memory of one thread, in floats. "Transposed" tiles have queries along their rows' lanes.
struct ForwardTiles {
    float *q_HQ, *k_KH, *v_KH, *p_KQ, *o_HQ, *maximum_Q, *sum_Q, *factor_Q;

    static int64_t floats(int64_t padded) {
        return 2 * padded * tile_queries + 2 * tile_keys * padded + tile_keys * tile_queries + 3 * tile_queries;
    }
    ForwardTiles(float* memory, int64_t padded) {
        q_HQ = memory;
        o_HQ = q_HQ + padded * tile_queries;
        k_KH = o_HQ + padded * tile_queries;
        v_KH = k_KH + tile_keys * padded;
        p_KQ = v_KH + tile_keys * padded;
        maximum_Q = p_KQ + tile_keys * tile_queries;
        sum_Q = maximum_Q + tile_queries;
        factor_Q = sum_Q + tile_queries;
    }
};

// Turns scores into exp(score - new maximum), and leaves in factor_Q what the old sums must be multiplied by.
TN_INLINE void online_softmax(int64_t keys, int64_t columns, const ForwardTiles& w) {
    for (int64_t i = 0; i < columns; i += lanes) {
        const f32x8 old_maximum = load(w.maximum_Q + i);
        f32x8 m = old_maximum;
        for (int64_t j = 0; j < keys; ++j) m = maximum(m, load(w.p_KQ + j * columns + i));
        // A query without a visible key so far: any finite shift makes exp(-infinity) the 0 that it should be.
        const f32x8 shift = select(m == minus_infinity, splat(0), m);
        f32x8 sum = splat(0);
        for (int64_t j = 0; j < keys; ++j) {
            const f32x8 p = exponential(load(w.p_KQ + j * columns + i) - shift);
            store(w.p_KQ + j * columns + i, p);
            sum += p;
        }
        const f32x8 factor = exponential(old_maximum - shift);
        store(w.factor_Q + i, factor);
        store(w.sum_Q + i, load(w.sum_Q + i) * factor + sum);
        store(w.maximum_Q + i, m);
    }
}

template <class T>
TN_INLINE void forward_typed(const tn_attention_forward_args& args, const QueryTile& t, int64_t head, float* memory) {
    const tn_attention_shape& s = args.shape;
    const int64_t dim = s.head_dim, padded = padded_dim(s), columns = t.columns;
    const int64_t kv_head = head / (s.q_heads / s.kv_heads);
    const ForwardTiles w(memory, padded);

    copy_transposed(head_at<const T>(args.q_TNH, t.q_begin, head), args.q_TNH.token_stride, t.rows, columns, dim, s.scale, w.q_HQ);
    std::fill_n(w.o_HQ, dim * columns, 0.0f);
    std::fill_n(w.sum_Q, columns, 0.0f);
    std::fill_n(w.maximum_Q, columns, minus_infinity);

    const KeyRange visible = visible_keys(s, t);
    for (int64_t first = visible.begin; first < visible.end; first += tile_keys) {
        const int64_t keys = std::min(tile_keys, visible.end - first), token = t.k_begin + first;
        copy_rows(head_at<const T>(args.k_TMH, token, kv_head), args.k_TMH.token_stride, keys, dim, padded, w.k_KH);
        copy_rows(head_at<const T>(args.v_TMH, token, kv_head), args.v_TMH.token_stride, keys, dim, padded, w.v_KH);
        matmul(keys, columns, dim, w.k_KH, padded, 1, w.q_HQ, columns, w.p_KQ, columns, false);
        mask_scores(s, t, first, keys, w.p_KQ);
        online_softmax(keys, columns, w);
        for (int64_t h = 0; h < dim; ++h)
            for (int64_t i = 0; i < columns; i += lanes)
                store(w.o_HQ + h * columns + i, load(w.o_HQ + h * columns + i) * load(w.factor_Q + i));
        matmul(dim, columns, keys, w.v_KH, 1, padded, w.p_KQ, columns, w.o_HQ, columns, true);
    }

    for (int64_t i = 0; i < t.rows; ++i) {
        const float sum = w.sum_Q[i], inverse = sum > 0 ? 1.0f / sum : sum;  // 0 stays 0, NaN stays NaN
        T* out = head_at<T>(args.out_TNH, t.q_begin + i, head);
        for (int64_t h = 0; h < dim; ++h) from_float(w.o_HQ[h * columns + i] * inverse, out[h]);
        args.lse_NT[head * s.q_tokens + t.q_begin + i] = sum == 0 ? minus_infinity : w.maximum_Q[i] + std::log(sum);
    }
}

void forward_tile(const tn_attention_forward_args& args, const QueryTile& t, int64_t head, float* memory) {
    if (args.shape.dtype == TN_FLOAT32)
        forward_typed<float>(args, t, head, memory);
    else
        forward_typed<bfloat16>(args, t, head, memory);
}

// Late queries see the most keys under a causal mask: they go first, so that no thread ends alone on a long tile.
std::vector<QueryTile> tiles_longest_first(const tn_attention_shape& s) {
    std::vector<QueryTile> tiles;
    for (int32_t sequence = 0; sequence < s.sequences; ++sequence)
        for (int64_t first = 0; first < s.cu_seqlens_q[sequence + 1] - s.cu_seqlens_q[sequence]; first += tile_queries)
            tiles.push_back(query_tile(s, sequence, first));
    std::stable_sort(tiles.begin(), tiles.end(), [&](const QueryTile& a, const QueryTile& b) {
        const KeyRange x = visible_keys(s, a), y = visible_keys(s, b);
        return x.end - x.begin > y.end - y.begin;
    });
    return tiles;
}

}  // namespace

void attention_forward(const tn_attention_forward_args& args) {
    const std::vector<QueryTile> tiles = tiles_longest_first(args.shape);
    const int64_t heads = args.shape.q_heads, tasks = static_cast<int64_t>(tiles.size()) * heads;
    const int64_t floats = ForwardTiles::floats(padded_dim(args.shape));
    std::vector<float> memory(static_cast<size_t>(floats * omp_get_max_threads()));
#pragma omp parallel for schedule(dynamic)
    for (int64_t task = 0; task < tasks; ++task)
        forward_tile(args, tiles[static_cast<size_t>(task / heads)], task % heads, memory.data() + floats * omp_get_thread_num());
}

}  // namespace trainer::TN_ISA
