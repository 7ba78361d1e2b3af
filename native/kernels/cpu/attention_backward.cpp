// FlashAttention backward: probabilities are recomputed from the log-sum-exp. One task per (sequence, query head) runs over
// its query tiles in order and sums that head's dK and dV in scratch; a second pass adds the heads of a group in order.
#include "attention_tile.h"
#include "ops.h"

#include <omp.h>

namespace trainer::TN_ISA {

namespace {

// Working memory of one thread, in floats.
struct BackwardTiles {
    float *q_HQ, *dout_HQ, *q_QH, *dout_QH, *dq_QH, *k_KH, *v_KH, *p_KQ, *ds_KQ, *lse_Q, *delta_Q;

    static int64_t floats(int64_t padded) {
        return 5 * padded * tile_queries + 2 * tile_keys * padded + 2 * tile_keys * tile_queries + 2 * tile_queries;
    }
    BackwardTiles(float* memory, int64_t padded) {
        q_HQ = memory;
        dout_HQ = q_HQ + padded * tile_queries;
        q_QH = dout_HQ + padded * tile_queries;
        dout_QH = q_QH + padded * tile_queries;
        dq_QH = dout_QH + padded * tile_queries;
        k_KH = dq_QH + padded * tile_queries;
        v_KH = k_KH + tile_keys * padded;
        p_KQ = v_KH + tile_keys * padded;
        ds_KQ = p_KQ + tile_keys * tile_queries;
        lse_Q = ds_KQ + tile_keys * tile_queries;
        delta_Q = lse_Q + tile_queries;
    }
};

// dK and dV of one query head, float32 [N, k_tokens, padded] each.
struct Partials {
    float *dk_NTH, *dv_NTH;
    int64_t padded, tokens;

    Partials(const tn_attention_backward_args& args) : padded(padded_dim(args.shape)), tokens(args.shape.k_tokens) {
        dk_NTH = static_cast<float*>(args.scratch);
        dv_NTH = dk_NTH + args.shape.q_heads * tokens * padded;
    }
    int64_t at(int64_t head, int64_t token) const { return (head * tokens + token) * padded; }
};

// scores -> probabilities in p_KQ; ds_KQ holds dout * V^T on entry and the gradient of the scores on return. Where these are all keys
// of the queries, delta is the mean of dout * V^T under the probabilities: out * dout sums to the same, but out was rounded.
TN_INLINE void score_gradients(int64_t keys, int64_t columns, bool all_keys, const BackwardTiles& w) {
    for (int64_t i = 0; i < columns; i += lanes) {
        const f32x8 lse = load(w.lse_Q + i);
        f32x8 mean = splat(0);
        for (int64_t j = 0; j < keys; ++j) {
            const int64_t at = j * columns + i;
            const f32x8 p = exponential(load(w.p_KQ + at) - lse);
            store(w.p_KQ + at, p);
            mean += p * load(w.ds_KQ + at);
        }
        const f32x8 delta = all_keys ? mean : load(w.delta_Q + i);
        for (int64_t j = 0; j < keys; ++j) {
            const int64_t at = j * columns + i;
            store(w.ds_KQ + at, load(w.p_KQ + at) * (load(w.ds_KQ + at) - delta));
        }
    }
}

template <class T>
TN_INLINE void load_queries(const tn_attention_backward_args& args, const QueryTile& t, int64_t head, const BackwardTiles& w) {
    const tn_attention_shape& s = args.shape;
    const int64_t dim = s.head_dim, padded = padded_dim(s);
    const T* q = head_at<const T>(args.q_TNH, t.q_begin, head);
    const T* dout = head_at<const T>(args.dout_TNH, t.q_begin, head);
    copy_transposed(q, args.q_TNH.token_stride, t.rows, t.columns, dim, s.scale, w.q_HQ);
    copy_transposed(dout, args.dout_TNH.token_stride, t.rows, t.columns, dim, 1, w.dout_HQ);
    copy_rows(q, args.q_TNH.token_stride, t.rows, dim, padded, w.q_QH);
    copy_rows(dout, args.dout_TNH.token_stride, t.rows, dim, padded, w.dout_QH);
    for (int64_t i = 0; i < t.columns; ++i) {
        const float lse = i < t.rows ? args.lse_NT[head * s.q_tokens + t.q_begin + i] : minus_infinity;
        w.lse_Q[i] = lse == minus_infinity ? -minus_infinity : lse;  // no key was seen: every probability becomes 0
        w.delta_Q[i] = 0;
        if (i >= t.rows) continue;
        const T* out = head_at<const T>(args.out_TNH, t.q_begin + i, head);
        f32x8 delta = splat(0);
        for_lanes(dim, [&](int64_t h, auto get, auto) __attribute__((always_inline)) {
            delta += get(out + h) * load(w.dout_QH + i * padded + h);
        });
        w.delta_Q[i] = sum_lanes(delta);
    }
}

template <class T>
TN_INLINE void backward_tile(const tn_attention_backward_args& args, const QueryTile& t, int64_t head, const Partials& partials,
                             const BackwardTiles& w) {
    const tn_attention_shape& s = args.shape;
    const int64_t dim = s.head_dim, padded = partials.padded, columns = t.columns;
    const int64_t kv_head = head / (s.q_heads / s.kv_heads);
    load_queries<T>(args, t, head, w);
    std::fill_n(w.dq_QH, t.rows * padded, 0.0f);

    const KeyRange visible = visible_keys(s, t);
    for (int64_t first = visible.begin; first < visible.end; first += tile_keys) {
        const int64_t keys = std::min(tile_keys, visible.end - first), token = t.k_begin + first;
        copy_rows(head_at<const T>(args.k_TMH, token, kv_head), args.k_TMH.token_stride, keys, dim, padded, w.k_KH);
        copy_rows(head_at<const T>(args.v_TMH, token, kv_head), args.v_TMH.token_stride, keys, dim, padded, w.v_KH);
        matmul(keys, columns, dim, w.k_KH, padded, 1, w.q_HQ, columns, w.p_KQ, columns, false);
        mask_scores(s, t, first, keys, w.p_KQ);
        matmul(keys, columns, dim, w.v_KH, padded, 1, w.dout_HQ, columns, w.ds_KQ, columns, false);
        score_gradients(keys, columns, keys == visible.end - visible.begin, w);
        matmul(keys, padded, t.rows, w.p_KQ, columns, 1, w.dout_QH, padded, partials.dv_NTH + partials.at(head, token), padded, true);
        matmul(keys, padded, t.rows, w.ds_KQ, columns, 1, w.q_QH, padded, partials.dk_NTH + partials.at(head, token), padded, true);
        matmul(t.rows, padded, keys, w.ds_KQ, 1, columns, w.k_KH, padded, w.dq_QH, padded, true);
    }

    for (int64_t i = 0; i < t.rows; ++i) {
        T* dq = head_at<T>(args.dq_TNH, t.q_begin + i, head);
        for_lanes(dim, [&](int64_t h, auto, auto put) __attribute__((always_inline)) {
            put(dq + h, load(w.dq_QH + i * padded + h) * s.scale);
        });
    }
}

template <class T>
TN_INLINE void backward_typed(const tn_attention_backward_args& args, int32_t sequence, int64_t head, float* memory) {
    const tn_attention_shape& s = args.shape;
    const Partials partials(args);
    const BackwardTiles w(memory, partials.padded);
    const int64_t k_begin = s.cu_seqlens_k[sequence], k_count = s.cu_seqlens_k[sequence + 1] - k_begin;
    std::fill_n(partials.dk_NTH + partials.at(head, k_begin), k_count * partials.padded, 0.0f);
    std::fill_n(partials.dv_NTH + partials.at(head, k_begin), k_count * partials.padded, 0.0f);
    for (int64_t first = 0; first < s.cu_seqlens_q[sequence + 1] - s.cu_seqlens_q[sequence]; first += tile_queries)
        backward_tile<T>(args, query_tile(s, sequence, first), head, partials, w);
}

void backward_head(const tn_attention_backward_args& args, int32_t sequence, int64_t head, float* memory) {
    if (args.shape.dtype == TN_FLOAT32)
        backward_typed<float>(args, sequence, head, memory);
    else
        backward_typed<bfloat16>(args, sequence, head, memory);
}

template <class T>
TN_INLINE void sum_group_typed(const tn_attention_backward_args& args, int64_t token) {
    const tn_attention_shape& s = args.shape;
    const Partials partials(args);
    const int64_t group = s.q_heads / s.kv_heads;
    for (int64_t kv_head = 0; kv_head < s.kv_heads; ++kv_head) {
        T* dk = head_at<T>(args.dk_TMH, token, kv_head);
        T* dv = head_at<T>(args.dv_TMH, token, kv_head);
        for_lanes(s.head_dim, [&](int64_t h, auto, auto put) __attribute__((always_inline)) {
            f32x8 dk_sum = splat(0), dv_sum = splat(0);
            for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
                dk_sum += load(partials.dk_NTH + partials.at(head, token) + h);
                dv_sum += load(partials.dv_NTH + partials.at(head, token) + h);
            }
            put(dk + h, dk_sum * s.scale);
            put(dv + h, dv_sum);
        });
    }
}

void sum_group(const tn_attention_backward_args& args, int64_t token) {
    if (args.shape.dtype == TN_FLOAT32)
        sum_group_typed<float>(args, token);
    else
        sum_group_typed<bfloat16>(args, token);
}

}  // namespace

int64_t attention_backward_scratch_bytes(const tn_attention_shape& s) {
    return 2 * s.q_heads * s.k_tokens * padded_dim(s) * static_cast<int64_t>(sizeof(float));
}

void attention_backward(const tn_attention_backward_args& args) {
    const tn_attention_shape& s = args.shape;
    const int64_t tasks = static_cast<int64_t>(s.sequences) * s.q_heads;
    const int64_t floats = BackwardTiles::floats(padded_dim(s));
    std::vector<float> memory(static_cast<size_t>(floats * omp_get_max_threads()));
#pragma omp parallel for schedule(dynamic)
    for (int64_t task = 0; task < tasks; ++task)
        backward_head(args, static_cast<int32_t>(task / s.q_heads), task % s.q_heads, memory.data() + floats * omp_get_thread_num());
#pragma omp parallel for schedule(static)
    for (int64_t token = 0; token < s.k_tokens; ++token) sum_group(args, token);
}

}  // namespace trainer::TN_ISA
