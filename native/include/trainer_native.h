/* trainer_native.h: the C interface of libtrainer_kernels. This header is its documentation.
 *
 * Shapes. Letters name the axes: T tokens, N query heads, M key/value heads, H head dimension, D row length,
 *   F feed-forward width, V vocabulary, S sequences of a packed batch. A name such as q_TNH carries its shape.
 *   Where a shape has one row axis (plain RMSNorm), it is a TNH shape with N = 1.
 * Types. Storage is float32 or bfloat16 (tn_dtype), for attention on CUDA bfloat16 or float16; all arithmetic is float32 or
 *   wider, rounded once on the way out, except that attention on CUDA rounds the factors of its matrix products to dtype.
 * Strides count elements. The last axis is always contiguous.
 * Memory. The caller owns every pointer. Tensors and scratch lie on the device named by `device`; the argument struct
 *   itself, and cu_seqlens and labels where said so, are host memory read before the call returns. Outputs never overlap
 *   inputs unless an operation says "in place". Data pointers may be null only where the tensor has no elements or
 *   where marked optional.
 * Streams. `stream` is a cudaStream_t for TN_DEVICE_CUDA: work is enqueued and the call returns without waiting, so
 *   pointers must stay valid until the stream has passed. TN_DEVICE_CPU ignores it and is done when the call returns.
 * Determinism. The same call on the same kind of processor gives the same bits, for any number of threads; the one exception
 *   is dq of an attention backward pass that asks for deterministic = 0. The CPU engine takes AVX2 with FMA where the
 *   processor has them, the CUDA engine takes wgmma on Hopper; TRAINER_KERNELS_ISA=portable in the environment forgoes them.
 * Errors. Every function answers a tn_status and has written nothing where it refuses an argument.
 *   tn_last_error() tells the calling thread what was wrong, beginning with the argument's name.
 *   TN_INVALID_ARGUMENT: a rule written beside an argument is violated; TN_UNSUPPORTED: the engine of that device is
 *   not in this build, or does not have this operation: CUDA lacks matmul, sum_of_squares and dropout; TN_CUDA_ERROR: a launch failed; TN_OUT_OF_MEMORY: the host refused working memory;
 *   TN_INTERNAL: a defect of this library.
 * Stability. Enum values are only ever appended. Each struct is led by struct_size = sizeof(the struct) as the caller
 *   compiled it; another size is refused. tn_abi_version() changes with every incompatible change. */
#ifndef TRAINER_NATIVE_H
#define TRAINER_NATIVE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TN_API __attribute__((visibility("default")))
#define TN_ABI_VERSION 6
#define TN_IGNORE_INDEX (-100)

typedef int32_t tn_status;
enum {
    TN_OK = 0,
    TN_INVALID_ARGUMENT = 1,
    TN_UNSUPPORTED = 2,
    TN_CUDA_ERROR = 3,
    TN_OUT_OF_MEMORY = 4,
    TN_INTERNAL = 5
};

typedef int32_t tn_dtype;
enum { TN_FLOAT32 = 1, TN_BFLOAT16 = 2, TN_FLOAT16 = 3 /* attention on CUDA only */ };

typedef int32_t tn_device;
enum { TN_DEVICE_CPU = 0, TN_DEVICE_CUDA = 1 };

/* A tensor [T, heads, width] whose last axis is contiguous: element (t, n, i) is data[t*token_stride + n*head_stride + i].
 * data null means "absent" where an argument is optional. */
typedef struct tn_tensor {
    void* data;
    int64_t token_stride;
    int64_t head_stride;
} tn_tensor;

/* ---- library ---- */

/* TN_ABI_VERSION of the built library. */
TN_API int32_t tn_abi_version(void);

/* The message of this thread's latest failed call; "" if none failed yet. Valid until the thread's next failure. */
TN_API const char* tn_last_error(void);

/* sizeof the struct named (for example "tn_attention_forward_args") as the library was compiled; 0 for an unknown name. */
TN_API uint32_t tn_sizeof(const char* struct_name);

/* Threads that the CPU engine uses from now on, in calls from this thread; at least 1. */
TN_API tn_status tn_set_threads(int32_t threads);

/* What there is to run the CUDA engine on. Everything after `built` is 0 where the engine is not in this build, everything after
 * `driver_version` where there is no driver, or no device for it. */
typedef struct tn_cuda_info {
    uint32_t struct_size;
    int32_t built;               /* 1: the CUDA engine is in this build */
    int32_t runtime_version;     /* the CUDA it was built with, 13000 for 13.0 */
    int32_t driver_version;      /* the newest CUDA that the driver runs, likewise */
    int32_t devices;             /* that this process may see */
    int32_t major;               /* compute capability of the current device */
    int32_t minor;
    int32_t multiprocessors;
    int32_t has_image;           /* 1: the build holds code that the device runs */
    int32_t reserved;
    int64_t memory_bytes;
    char name[256];              /* of the device; UTF-8 */
    char problem[256];           /* CUDA's own words where the device can't be used, else "" */
} tn_cuda_info;

/* Fills in everything but struct_size. Launches nothing and does not fail for want of a GPU. */
TN_API tn_status tn_cuda_probe(tn_cuda_info* info);

/* ---- attention ----
 * Exact softmax attention over packed sequences, tiled: memory grows with T, never with T*T.
 * Sequence s owns query tokens cu_seqlens_q[s] .. cu_seqlens_q[s+1]-1 and key tokens likewise; it never sees another.
 * Query head n reads key/value head n / (N/M). Query i of a sequence with Lq queries and Lk keys sits at key position
 * i + Lk - Lq (bottom-right alignment). It sees key j iff
 *   (not causal or j <= position) and (window < 0 or j >= position - window).
 * A query that sees no key gets out = 0, lse = -infinity and passes no gradient.
 * TN_DEVICE_CUDA asks for more: a GPU of compute capability 8.0 or later, bfloat16 or float16, head_dim a multiple of 8 up to
 * 128, a scale above 0, tensors aligned to 16 bytes with strides that are multiples of 8, all on the current device. */

typedef struct tn_attention_shape {
    tn_device device;
    tn_dtype dtype;              /* of q, k, v, out and their gradients */
    int64_t q_tokens;            /* >= 0 */
    int64_t k_tokens;            /* >= 0 */
    int32_t q_heads;             /* N, a multiple of M */
    int32_t kv_heads;            /* M >= 1 */
    int32_t head_dim;            /* H in 1..256 */
    int32_t sequences;           /* S >= 0 */
    const int32_t* cu_seqlens_q; /* host, [S+1]: starts at 0, never descends, ends at q_tokens */
    const int32_t* cu_seqlens_k; /* host, [S+1]: starts at 0, never descends, ends at k_tokens */
    float scale;                 /* scores are scale * <q, k>; finite */
    int32_t causal;              /* 0 or 1 */
    int32_t window;              /* keys further left than this are not seen; -1: no limit */
    int32_t reserved;            /* 0 */
} tn_attention_shape;

typedef struct tn_attention_forward_args {
    uint32_t struct_size;
    tn_attention_shape shape;
    tn_tensor q_TNH;
    tn_tensor k_TMH;
    tn_tensor v_TMH;
    tn_tensor out_TNH;           /* written */
    float* lse_NT;               /* written: natural logarithm of the sum of exp(scores), contiguous [N, q_tokens] */
} tn_attention_forward_args;

TN_API tn_status tn_attention_forward(const tn_attention_forward_args* args, void* stream);

typedef struct tn_attention_backward_args {
    uint32_t struct_size;
    int32_t deterministic;       /* 1: the same bits in every run of the same call on the same chip. 0: CUDA may add up dq in any order,
                                    where that is faster */
    tn_attention_shape shape;
    tn_tensor q_TNH;
    tn_tensor k_TMH;
    tn_tensor v_TMH;
    tn_tensor out_TNH;           /* of the forward pass */
    const float* lse_NT;         /* of the forward pass */
    tn_tensor dout_TNH;          /* gradient of the loss by out */
    tn_tensor dq_TNH;            /* written */
    tn_tensor dk_TMH;            /* written */
    tn_tensor dv_TMH;            /* written */
    void* scratch;               /* aligned to 4 bytes, on CUDA to 16; its content on entry does not matter */
    int64_t scratch_bytes;       /* at least what tn_attention_backward_scratch_bytes answers */
} tn_attention_backward_args;

TN_API tn_status tn_attention_backward(const tn_attention_backward_args* args, void* stream);

/* Writes to *bytes how much scratch tn_attention_backward needs for this shape: of the order k_tokens * N * H floats
 * on the CPU; on CUDA q_tokens * N floats where deterministic, else q_tokens * N * H, for dq in
 * float32 where it is added up in any order. */
TN_API tn_status tn_attention_backward_scratch_bytes(const tn_attention_shape* shape, int32_t deterministic, int64_t* bytes);

/* ---- RMSNorm ----
 * sum = x + residual (rounded to dtype; sum = x without a residual); rstd = 1/sqrt(mean(sum^2) + epsilon) over the last
 * axis; y = sum * rstd * weight. Per-head norm is the case N > 1; one weight [D] serves all heads.
 * On CUDA D is a multiple of 8 up to 8,192 (else TN_UNSUPPORTED), strides are multiples of 8, and x, residual, sum, y, dy, dsum, dx,
 * weight and scratch are aligned to 16 bytes. */

typedef struct tn_rms_norm_forward_args {
    uint32_t struct_size;
    tn_device device;
    tn_dtype dtype;              /* of x, residual, sum, y */
    tn_dtype weight_dtype;
    int64_t tokens;              /* T >= 0 */
    int64_t heads;               /* N >= 1 */
    int64_t width;               /* D >= 1 */
    float epsilon;               /* >= 0 */
    uint32_t reserved;           /* 0 */
    tn_tensor x_TND;
    tn_tensor residual_TND;      /* optional */
    tn_tensor sum_TND;           /* written; required with a residual, refused without. May be x or residual in place */
    tn_tensor y_TND;             /* written */
    const void* weight_D;        /* contiguous */
    float* rstd_TN;              /* written, contiguous */
} tn_rms_norm_forward_args;

TN_API tn_status tn_rms_norm_forward(const tn_rms_norm_forward_args* args, void* stream);

/* Writes to *bytes how much scratch tn_rms_norm_backward needs for dweight: none on the CPU, on CUDA the float32 sums of up to 528
 * groups of rows. */
TN_API tn_status tn_rms_norm_backward_scratch_bytes(tn_device device, int64_t tokens, int64_t heads, int64_t width, int64_t* bytes);

typedef struct tn_rms_norm_backward_args {
    uint32_t struct_size;
    tn_device device;
    tn_dtype dtype;              /* of sum, dy, dsum, dx */
    tn_dtype weight_dtype;       /* of weight and dweight */
    int64_t tokens;
    int64_t heads;
    int64_t width;
    tn_tensor sum_TND;           /* the normalised tensor: sum, or x where there was no residual */
    tn_tensor dy_TND;
    tn_tensor dsum_TND;          /* optional: gradient that reaches sum on its other way, added to dx */
    tn_tensor dx_TND;            /* written: the gradient of x and of the residual alike. May be dy or dsum in place */
    const void* weight_D;
    void* dweight_D;             /* optional, written, contiguous */
    const float* rstd_TN;
    void* scratch;               /* where dweight is wanted and scratch is needed */
    int64_t scratch_bytes;       /* of scratch, at least what tn_rms_norm_backward_scratch_bytes says */
} tn_rms_norm_backward_args;

TN_API tn_status tn_rms_norm_backward(const tn_rms_norm_backward_args* args, void* stream);

/* ---- rotary position embedding ----
 * Pairs (i, i + H/2), the "rotate_half" convention: out[i] = x[i]*cos[i] - x[i+H/2]*sin[i] and
 * out[i+H/2] = x[i+H/2]*cos[i] + x[i]*sin[i]. inverse turns the other way, which is also the backward pass. */

typedef struct tn_rotary_args {
    uint32_t struct_size;
    tn_device device;
    tn_dtype dtype;              /* of x and out */
    int32_t inverse;             /* 0 or 1 */
    int64_t tokens;              /* T >= 0 */
    int64_t heads;               /* N >= 1 */
    int64_t head_dim;            /* H >= 2, even */
    tn_tensor x_TNH;
    tn_tensor out_TNH;           /* written; may be x in place */
    const float* cos_TH2;        /* contiguous [T, H/2] */
    const float* sin_TH2;        /* contiguous [T, H/2] */
} tn_rotary_args;

TN_API tn_status tn_rotary(const tn_rotary_args* args, void* stream);

/* ---- SwiGLU ----
 * gate_up holds the gate in columns 0..F-1 and the up projection in F..2F-1; out = gate * sigmoid(gate) * up. */

typedef struct tn_swiglu_forward_args {
    uint32_t struct_size;
    tn_device device;
    tn_dtype dtype;
    uint32_t reserved;           /* 0 */
    int64_t tokens;              /* T >= 0 */
    int64_t width;               /* F >= 1 */
    const void* gate_up_T2F;
    int64_t gate_up_stride;      /* between tokens, >= 2F */
    void* out_TF;                /* written */
    int64_t out_stride;          /* between tokens, >= F */
} tn_swiglu_forward_args;

TN_API tn_status tn_swiglu_forward(const tn_swiglu_forward_args* args, void* stream);

typedef struct tn_swiglu_backward_args {
    uint32_t struct_size;
    tn_device device;
    tn_dtype dtype;
    uint32_t reserved;           /* 0 */
    int64_t tokens;
    int64_t width;
    const void* gate_up_T2F;
    int64_t gate_up_stride;
    const void* dout_TF;
    int64_t dout_stride;
    void* dgate_up_T2F;          /* written; may be gate_up in place */
    int64_t dgate_up_stride;
} tn_swiglu_backward_args;

TN_API tn_status tn_swiglu_backward(const tn_swiglu_backward_args* args, void* stream);

/* ---- matrix product ----
 * C[M, N] = A[M, K] * B[K, N], added to C where `accumulate`. Either factor may be stored transposed.
 * An element's bits depend on its row of A, its column of B and K alone: not on M, N, its position or the number of threads.
 * K is summed in short float32 runs; these are added in order, in float32, or in float64 where A is transposed: that sum is
 * a weight's gradient, long and cut differently when documents are packed differently. */

typedef struct tn_matmul_args {
    uint32_t struct_size;
    tn_device device;
    tn_dtype dtype;              /* of a and b */
    tn_dtype result_dtype;       /* of c */
    int32_t a_transposed;        /* 0: a is [M, K]; 1: a is [K, M] */
    int32_t b_transposed;        /* 0: b is [K, N]; 1: b is [N, K] */
    int32_t accumulate;          /* 0 or 1 */
    uint32_t reserved;           /* 0 */
    int64_t rows;                /* M >= 0 */
    int64_t columns;             /* N >= 0 */
    int64_t depth;               /* K >= 0; with 0 the product is zero */
    const void* a;
    int64_t a_stride;            /* between rows as stored, at least their length; so are b_stride and c_stride */
    const void* b;
    int64_t b_stride;
    void* c_MN;                  /* written; read too where `accumulate` */
    int64_t c_stride;
} tn_matmul_args;

TN_API tn_status tn_matmul(const tn_matmul_args* args, void* stream);

/* ---- cross-entropy ----
 * loss[r] = logsumexp(logits[r]) - logits[r][labels[r]]; 0 where labels[r] is TN_IGNORE_INDEX. With write_gradient, logits
 * are overwritten in place by gradient_scale * (softmax(logits[r]) - onehot(labels[r])), all zero in ignored rows.
 * On CUDA the labels can't be looked at before the launch: a row whose label is neither gets NaN. */

typedef struct tn_cross_entropy_args {
    uint32_t struct_size;
    tn_device device;
    tn_dtype dtype;              /* of logits */
    int32_t write_gradient;      /* 0 or 1 */
    int64_t rows;                /* C >= 0 */
    int64_t vocabulary;          /* V >= 1 */
    void* logits_CV;             /* read; overwritten with write_gradient */
    int64_t logits_stride;       /* between rows, >= V */
    const int64_t* labels_C;     /* on the device; 0..V-1 or TN_IGNORE_INDEX; the CPU engine refuses another with its row */
    float* loss_C;               /* written */
    float gradient_scale;        /* finite; used with write_gradient */
    uint32_t reserved;           /* 0 */
} tn_cross_entropy_args;

TN_API tn_status tn_cross_entropy(const tn_cross_entropy_args* args, void* stream);

/* ---- AdamW ----
 * torch.optim.AdamW's step on float32 master weights, g = gradient * gradient_scale:
 *   p *= 1 - learning_rate*weight_decay;  m += (1-beta1)*(g-m);  v = beta2*v + (1-beta2)*g*g;
 *   p -= learning_rate/(1-beta1^step) * m / (sqrt(v)/sqrt(1-beta2^step) + epsilon). */

typedef struct tn_adamw_args {
    uint32_t struct_size;
    tn_device device;
    tn_dtype gradient_dtype;
    uint32_t reserved;           /* 0 */
    int64_t count;               /* elements, >= 0 */
    float* parameter;            /* updated */
    float* first_moment;         /* m, updated */
    float* second_moment;        /* v, updated */
    const void* gradient;
    void* bfloat16_copy;         /* optional, written: the new parameter rounded to bfloat16 */
    double learning_rate;        /* >= 0 */
    double beta1;                /* in [0, 1) */
    double beta2;                /* in [0, 1) */
    double epsilon;              /* >= 0 */
    double weight_decay;         /* >= 0 */
    double gradient_scale;       /* finite */
    int64_t step;                /* this step's number, from 1 */
} tn_adamw_args;

TN_API tn_status tn_adamw(const tn_adamw_args* args, void* stream);

/* The same for each of `count` tensors of one device, which share no memory: dozens in one launch. Refused before any is changed. */
TN_API tn_status tn_adamw_each(const tn_adamw_args* args, int64_t count, void* stream);

/* Writes to *result (on the device) the sum of squares of x[0..count-1], accumulated in float64. */
TN_API tn_status tn_sum_of_squares(
    tn_device device, tn_dtype dtype, int64_t count, const void* x, double* result, void* stream);

/* sum[i] += addend[i]; sum is float32. */
TN_API tn_status tn_accumulate(
    tn_device device, tn_dtype addend_dtype, int64_t count, float* sum, const void* addend, void* stream);

/* ---- dropout ----
 * y[i] = keep(i) ? x[i] / (1 - probability) : 0. keep is a pure function of (seed, offset + i), from Philox 4x32-10, so the
 * same call on the gradient is the backward pass. */

typedef struct tn_dropout_args {
    uint32_t struct_size;
    tn_device device;
    tn_dtype dtype;
    float probability;           /* of dropping, in [0, 1) */
    int64_t count;               /* elements, >= 0 */
    const void* x;
    void* y;                     /* written; may be x in place */
    uint64_t seed;
    uint64_t offset;             /* of element 0 in the stream of this seed; a multiple of 4 */
} tn_dropout_args;

TN_API tn_status tn_dropout(const tn_dropout_args* args, void* stream);

#ifdef __cplusplus
}
#endif

#endif
