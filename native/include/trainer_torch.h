/* libtrainer_torch: the part of libtorch that the managed side needs, as C11.
 *
 * Status    Every function that can fail returns TT_OK or TT_ERROR. After TT_ERROR the calling thread's message is in
 *           tt_last_error() until its next failing call; no C++ exception leaves the library and nothing aborts.
 * Tensors   A tt_tensor is an at::Tensor on the heap. Whoever receives one from the library (an `out` parameter, an
 *           output of tt_call, a gradient given to a callback) owns it and frees it with tt_tensor_free. Handles passed
 *           in stay the caller's. NULL stands for "no tensor" where a parameter says so.
 * Threads   Any function may be called from any thread. Gradient mode is thread-local, as in libtorch.
 * Getters   Functions that return their value directly cannot fail and neither block nor call back.
 */
#ifndef TRAINER_TORCH_H
#define TRAINER_TORCH_H

#include <stdint.h>

#define TT_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

/* Raised when a signature or a struct below changes; the managed side refuses another value. */
#define TT_ABI_VERSION 3

enum { TT_OK = 0, TT_ERROR = 1 };

typedef struct tt_tensor_opaque* tt_tensor;
typedef struct tt_operator_opaque* tt_operator;   /* lives as long as the process */
typedef struct tt_generator_opaque* tt_generator; /* at::Generator on the heap; tt_generator_free */
typedef struct tt_node_opaque* tt_node;           /* a custom function's graph node; valid inside its backward only */

/* Persisted in the managed enum ValueKind: append only. */
enum {
    TT_VALUE_NONE = 0,      /* None */
    TT_VALUE_DEFAULT = 1,   /* an argument left to the operator's schema */
    TT_VALUE_TENSOR = 2,    /* as.tensor, NULL allowed for Tensor? arguments */
    TT_VALUE_INT = 3,       /* as.i; also dtypes, layouts and memory formats */
    TT_VALUE_DOUBLE = 4,    /* as.d */
    TT_VALUE_BOOL = 5,      /* as.i, 0 or 1 */
    TT_VALUE_INTS = 6,      /* as.ints[count]; becomes bool[] or float[] where the schema says so */
    TT_VALUE_TENSORS = 7,   /* as.tensors[count]; an output list is freed with tt_tensors_free */
    TT_VALUE_TEXT = 8,      /* as.text, UTF-8, count bytes */
    TT_VALUE_DEVICE = 9,    /* as.i = type << 8 | (index & 0xff), index 0xff: the current one */
    TT_VALUE_GENERATOR = 10 /* as.generator */
};

typedef struct tt_value {
    int32_t kind;
    int32_t count;
    union {
        int64_t i;
        double d;
        const int64_t* ints;
        tt_tensor tensor;
        tt_tensor* tensors;
        const char* text;
        tt_generator generator;
    } as;
} tt_value;

/* ---- The library ------------------------------------------------------------------------------------------------ */

TT_API int32_t tt_abi_version(void);
/* "1.13.0": the headers that this library was compiled with. */
TT_API const char* tt_built_version(void);
/* The version of the loaded libtorch as its files state it, "" when they do not. */
TT_API const char* tt_loaded_version(void);
/* The path of the loaded libtorch_cpu. */
TT_API const char* tt_loaded_path(void);
/* UTF-8, the calling thread's last error: operator, reason, dtypes and shapes of the tensor arguments. */
TT_API const char* tt_last_error(void);
/* The handle that a managed callback returned when it made the last call fail, 0 if none did. The caller owns it. */
TT_API int64_t tt_take_managed_error(void);

TT_API int32_t tt_get_num_threads(void);
TT_API int32_t tt_set_num_threads(int32_t count);
TT_API int32_t tt_manual_seed(int64_t seed);
TT_API int32_t tt_cuda_device_count(int32_t* out);
/* Also asks cuBLAS for it, which works until its first product on a GPU. */
TT_API int32_t tt_set_deterministic(int32_t enabled, int32_t warn_only);
/* Allows float32 products on TF32 tensor cores. Without CUDA it changes nothing. */
TT_API int32_t tt_set_allow_tf32(int32_t enabled);

/* device as in TT_VALUE_DEVICE. An own generator starts with the given seed. */
TT_API int32_t tt_generator_new(int64_t device, int64_t seed, tt_generator* out);
/* The default generator of a device. */
TT_API int32_t tt_generator_default(int64_t device, tt_generator* out);
TT_API int32_t tt_generator_set_seed(tt_generator generator, int64_t seed);
TT_API int32_t tt_generator_get_seed(tt_generator generator, int64_t* out);
/* State as a uint8 tensor on the CPU. */
TT_API int32_t tt_generator_get_state(tt_generator generator, tt_tensor* out);
TT_API int32_t tt_generator_set_state(tt_generator generator, tt_tensor state);
TT_API void tt_generator_free(tt_generator generator);

/* ---- Operators -------------------------------------------------------------------------------------------------- */

/* Any operator of libtorch's dispatcher, e.g. ("aten::add", "Tensor"). *out is NULL when this libtorch has none. */
TT_API int32_t tt_operator_find(const char* name, const char* overload, tt_operator* out);
/* Runs an operator with autograd. Arguments in the order of its schema; missing ones take the schema's defaults.
 * The first `output_count` results are written to outputs, as TENSOR, TENSORS, INT, DOUBLE or BOOL; the rest is dropped. */
TT_API int32_t tt_call(tt_operator op, const tt_value* arguments, int32_t argument_count, tt_value* outputs,
                       int32_t output_count);
/* Frees the array, not the tensors in it. */
TT_API void tt_tensors_free(tt_tensor* tensors);

/* ---- Tensors ---------------------------------------------------------------------------------------------------- */

TT_API void tt_tensor_free(tt_tensor tensor);
/* Another handle of the same tensor. */
TT_API tt_tensor tt_tensor_alias(tt_tensor tensor);
/* A CPU tensor over memory that stays the caller's. `release` (may be NULL) is called with `state` once no tensor uses
 * the memory any longer, on any thread, and also when this function fails. sizes[dim], contiguous. */
TT_API int32_t tt_tensor_from_blob(void* data, const int64_t* sizes, int32_t dim, int32_t dtype,
                                   void (*release)(void* state), void* state, tt_tensor* out);

/* Memory as it comes. sizes[dim]; dtype -1: libtorch's default. As tt_call with "empty", in a third of its time. */
TT_API int32_t tt_empty(const int64_t* sizes, int32_t dim, int32_t dtype, int64_t device, tt_tensor* out);

/* Columns of a matrix, read or written in place; transposed after they were chosen. */
typedef struct tt_columns {
    tt_tensor tensor;
    int64_t first;
    int64_t count;
    int32_t transposed;
    int32_t reserved;
} tt_columns;

/* c = alpha * a b, or that added to c. Neither is seen by autograd. c may be float32 where a and b have 16 bits. */
TT_API int32_t tt_product(const tt_columns* c, const tt_columns* a, const tt_columns* b, double alpha, int32_t accumulate);

TT_API int64_t tt_tensor_dim(tt_tensor tensor);
TT_API int64_t tt_tensor_numel(tt_tensor tensor);
TT_API int64_t tt_tensor_element_size(tt_tensor tensor);
TT_API int32_t tt_tensor_dtype(tt_tensor tensor);
/* As in TT_VALUE_DEVICE. */
TT_API int64_t tt_tensor_device(tt_tensor tensor);
/* Both write dim() numbers. */
TT_API void tt_tensor_sizes(tt_tensor tensor, int64_t* out);
TT_API void tt_tensor_strides(tt_tensor tensor, int64_t* out);
TT_API int64_t tt_tensor_storage_offset(tt_tensor tensor);
TT_API int32_t tt_tensor_is_contiguous(tt_tensor tensor);
TT_API int32_t tt_tensor_requires_grad(tt_tensor tensor);
TT_API int32_t tt_tensor_is_leaf(tt_tensor tensor);
/* Counts in-place changes; 0 for inference tensors. */
TT_API int64_t tt_tensor_version(tt_tensor tensor);
/* Counts one: for who writes through tt_tensor_data_ptr. */
TT_API void tt_tensor_bump_version(tt_tensor tensor);
/* The first element; NULL for an empty tensor. */
TT_API int32_t tt_tensor_data_ptr(tt_tensor tensor, void** out);
TT_API int32_t tt_tensor_set_requires_grad(tt_tensor tensor, int32_t requires_grad);
/* *out is NULL without a gradient. */
TT_API int32_t tt_tensor_grad(tt_tensor tensor, tt_tensor* out);
/* grad may be NULL. */
TT_API int32_t tt_tensor_set_grad(tt_tensor tensor, tt_tensor grad);
TT_API int32_t tt_tensor_retain_grad(tt_tensor tensor);
/* Makes `tensor` share the data of `source`, keeping its own autograd state. */
TT_API int32_t tt_tensor_set_data(tt_tensor tensor, tt_tensor source);

/* Persisted in the managed enum IndexKind: append only. */
enum {
    TT_INDEX_NONE = 0,     /* a new axis of size 1 */
    TT_INDEX_ELLIPSIS = 1,
    TT_INDEX_SINGLE = 2,   /* start */
    TT_INDEX_BOOL = 3,     /* start, 0 or 1 */
    TT_INDEX_SLICE = 4,    /* start:stop:step, INT64_MIN where left out */
    TT_INDEX_TENSOR = 5    /* tensor */
};

typedef struct tt_index {
    int64_t kind;
    int64_t start;
    int64_t stop;
    int64_t step;
    tt_tensor tensor;
} tt_index;

TT_API int32_t tt_tensor_index(tt_tensor tensor, const tt_index* indices, int32_t count, tt_tensor* out);
TT_API int32_t tt_tensor_index_put(tt_tensor tensor, const tt_index* indices, int32_t count, tt_tensor value);

/* ---- Autograd --------------------------------------------------------------------------------------------------- */

TT_API int32_t tt_grad_mode(void);
TT_API void tt_set_grad_mode(int32_t enabled);
TT_API int32_t tt_inference_mode(void);
/* Guards nest and are freed in the reverse order, on the thread that made them. */
TT_API void* tt_inference_guard_new(int32_t enabled);
TT_API void tt_inference_guard_free(void* guard);

/* gradients: NULL or gradient_count == tensor_count entries (NULL entries: ones for a scalar). retain_graph < 0: as
 * create_graph. inputs empty: every leaf accumulates. */
TT_API int32_t tt_backward(const tt_tensor* tensors, int32_t tensor_count, const tt_tensor* gradients,
                           int32_t gradient_count, int32_t retain_graph, int32_t create_graph, const tt_tensor* inputs,
                           int32_t input_count);
/* Writes input_count gradients; with allow_unused an entry may be NULL. */
TT_API int32_t tt_grad(const tt_tensor* outputs, int32_t output_count, const tt_tensor* inputs, int32_t input_count,
                       const tt_tensor* gradients, int32_t gradient_count, int32_t retain_graph, int32_t create_graph,
                       int32_t allow_unused, tt_tensor* out);

/* What a custom function's node calls, on whichever thread runs the graph. `state` identifies the call of the function. */
typedef struct tt_function_callbacks {
    /* gradients[output_count]: owned by the callee, NULL where undefined. The callee writes owned handles or NULL to
     * results[input_count]. Returns 0, or a handle of the managed exception, given to tt_take_managed_error. */
    int64_t (*backward)(void* state, tt_node node, tt_tensor* gradients, int32_t output_count, tt_tensor* results,
                        int32_t input_count);
    /* The node is gone: exactly one call for each tt_function_apply, also when that failed. */
    void (*release)(void* state);
    /* Frees an exception handle that nobody took. */
    void (*release_error)(int64_t error);
} tt_function_callbacks;

typedef struct tt_function_call {
    const char* name;
    void* state;
    const tt_function_callbacks* callbacks; /* static */
    const tt_tensor* inputs;                /* the tensor arguments, in order */
    const tt_tensor* outputs;               /* what forward computed without gradients; NULL entries allowed */
    const tt_tensor* saved;                 /* for backward; NULL entries allowed */
    const tt_tensor* non_differentiable;    /* among outputs */
    const tt_tensor* dirty;                 /* inputs changed in place */
    int32_t input_count;
    int32_t output_count;
    int32_t saved_count;
    int32_t non_differentiable_count;
    int32_t dirty_count;
    int32_t materialize_gradients;          /* undefined gradients reach backward as zeros */
} tt_function_call;

/* Puts a custom function that has run forward into the graph. Only shapes of the outputs are kept, and `saved` until
 * backward has run (or the graph is dropped). Writes output_count owned handles (NULL for NULL). */
TT_API int32_t tt_function_apply(const tt_function_call* call, tt_tensor* results);
TT_API int32_t tt_node_saved_count(tt_node node);
/* Writes tt_node_saved_count owned handles. Fails after release, and when a saved tensor was changed in place. */
TT_API int32_t tt_node_saved(tt_node node, tt_tensor* out);
/* Whether the running backward pass wants the gradient of this tensor input. */
TT_API int32_t tt_node_needs_input_grad(tt_node node, int32_t input);
/* Custom function nodes alive in the process. */
TT_API int64_t tt_live_nodes(void);

/* ---- CUDA ------------------------------------------------------------------------------------------------------- */

/* A CUDA graph with a stream of its own. */
typedef struct tt_graph_opaque* tt_graph;

/* 0 when the library was built without CUDA: then everything below fails and says so. */
TT_API int32_t tt_has_cuda(void);
/* The cudaStream_t on which this thread's operators run on the device. */
TT_API int32_t tt_cuda_current_stream(int64_t device, void** out);
/* Waits for everything on the current device. */
TT_API int32_t tt_cuda_synchronize(void);
/* Bytes that tensors hold now and held at most, and bytes that libtorch holds of the device. */
TT_API int32_t tt_cuda_memory(int64_t device, int64_t* allocated, int64_t* peak, int64_t* reserved);
TT_API int32_t tt_cuda_reset_peak(int64_t device);
TT_API int32_t tt_cuda_empty_cache(void);
/* From here to tt_graph_end the calling thread's operators, and backward passes that it starts, are recorded instead of run.
 * Tensors made meanwhile live in the graph's memory. After a failure of tt_graph_end only tt_graph_free is left. */
TT_API int32_t tt_graph_begin(tt_graph* out);
TT_API int32_t tt_graph_end(tt_graph graph);
/* On the calling thread's current stream. */
TT_API int32_t tt_graph_replay(tt_graph graph);
TT_API void tt_graph_free(tt_graph graph);
/* Which kernels scaled_dot_product_attention may take. */
TT_API int32_t tt_set_attention_backends(int32_t flash, int32_t memory_efficient, int32_t cudnn, int32_t math);

/* ---- Collectives ------------------------------------------------------------------------------------------------ */

/* A c10d TCPStore, where the ranks of a group find each other. */
typedef struct tt_store_opaque* tt_store;
/* A c10d process group over Gloo: CPU tensors over TCP. Every rank calls the same functions in the same order, one at a
 * time; a call returns when this rank's part is done. A rank that died makes the others' calls fail as soon as its
 * connections are reset, a rank that hangs only after the timeout. After a failure the group is good for nothing more. */
typedef struct tt_group_opaque* tt_group;

/* 0 when the library was built without gloo's headers: then tt_group_new fails and says what to install. */
TT_API int32_t tt_has_gloo(void);
/* Serves a store on a port that the system chooses, on all addresses of this machine, and connects to it as `host`. */
TT_API int32_t tt_store_serve(const char* host, int64_t timeout_ms, tt_store* out, int32_t* port);
/* Fails when nobody serves there within the timeout. */
TT_API int32_t tt_store_connect(const char* host, int32_t port, int64_t timeout_ms, tt_store* out);
/* Waits until all ranks have come, timeout_ms at most: the failure names those that are missing. `device` is what this rank computes
 * on, "CPU" or "GPU": where ranks differ, all fail. */
TT_API int32_t tt_store_meet(tt_store store, const char* device, int32_t rank, int32_t world_size, int64_t timeout_ms);
TT_API int32_t tt_store_set(tt_store store, const char* key, const void* value, int64_t length);
/* Waits for the key as long as the store's own timeout. The value must have `length` bytes. */
TT_API int32_t tt_store_get(tt_store store, const char* key, void* value, int64_t length);
/* A serving store ends with its handle: free it last. */
TT_API void tt_store_free(tt_store store);
/* Connects the ranks, which have met. `host` is the address under which the other ranks reach this one. timeout_ms bounds this and
 * every later call. */
TT_API int32_t tt_group_new(tt_store store, const char* host, int32_t rank, int32_t world_size, int64_t timeout_ms, tt_group* out);
/* In place, over all ranks; contiguous float32, float64 or int64 on the CPU. The bits are the same on every rank, and in
 * every run of the same world size. */
TT_API int32_t tt_group_all_reduce_sum(tt_group group, tt_tensor tensor);
/* In place: every rank gets the tensor of rank `root`. */
TT_API int32_t tt_group_broadcast(tt_group group, tt_tensor tensor, int32_t root);
TT_API int32_t tt_group_barrier(tt_group group);
TT_API void tt_group_free(tt_group group);

#ifdef __cplusplus
}
#endif

#endif
