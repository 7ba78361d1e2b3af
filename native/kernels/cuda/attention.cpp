// Checks what only this engine asks for, and chooses the kernel.
#include "attention.h"

#include "device.h"
#include "engine.h"
#include "launch.h"

#include <algorithm>
#include <cstdlib>
#include <limits>

namespace trainer::cuda {

namespace {

void require_chip(const Device& device) {
    if (device.major < 8)
        throw Refusal(TN_UNSUPPORTED, "device: the attention kernels need a GPU of compute capability 8.0 or later, this one has " +
                                          std::to_string(device.major) + "." + std::to_string(device.minor));
}

// The kernels move 16 bytes at a time.
void require_matrix(const tn_tensor& t, int64_t tokens, int64_t heads, const Device& device, const char* argument) {
    if (tokens == 0) return;
    require(reinterpret_cast<uintptr_t>(t.data) % 16 == 0, argument, "must be aligned to 16 bytes on CUDA");
    require(heads == 1 || t.head_stride % 8 == 0, argument, "head_stride must be a multiple of 8 on CUDA");
    require(tokens == 1 || t.token_stride % 8 == 0, argument, "token_stride must be a multiple of 8 on CUDA");
    require_on_device(t.data, device, argument);
}

bool runs_hopper_kernels(const Device& device, const tn_attention_shape& s) {
    const char* forced = std::getenv("TRAINER_KERNELS_ISA");
    if (forced && std::string(forced) == "portable") return false;
    return device.major == 9 && device.minor == 0 && (s.head_dim == 64 || s.head_dim == 128);
}

// Keys that a query sees on average, but for the mask's ends.
double keys_seen(const tn_attention_shape& s) {
    double pairs = 0;
    for (int32_t i = 0; i < s.sequences; ++i) {
        const double queries = s.cu_seqlens_q[i + 1] - s.cu_seqlens_q[i], keys = s.cu_seqlens_k[i + 1] - s.cu_seqlens_k[i];
        const double seen = !s.causal ? keys : queries <= keys ? keys - queries / 2 : keys * keys / (2 * queries);
        pairs += queries * (s.causal && s.window >= 0 ? std::min(seen, s.window + 1.) : seen);
    }
    return pairs / std::max<int64_t>(1, s.q_tokens);
}

// Two products more cost less than a float32 dq that is cleared, added to and rounded, where a query sees few keys; and the portable
// kernel in any order leaves multiprocessors idle that the deterministic one has queries for. As measured: benchmarks/H200/attention.md.
bool deterministic_is_faster(const tn_attention_shape& s, const Device& device, bool hopper) {
    if (hopper) return s.head_dim == 128 && keys_seen(s) <= 512;
    constexpr int32_t block_keys = 128;
    int64_t blocks = 0;
    for (int32_t i = 0; i < s.sequences; ++i) blocks += (s.cu_seqlens_k[i + 1] - s.cu_seqlens_k[i] + block_keys - 1) / block_keys;
    return blocks * s.kv_heads < device.multiprocessors;
}

void backward_in_order(const tn_attention_backward_args& args, bool hopper, cudaStream_t stream) {
    float* delta = static_cast<float*>(args.scratch);
    const RowFloats row_floats{delta, 1, args.shape.q_tokens, 1};
    attention_delta(args, row_floats, nullptr, stream);
    if (hopper) hopper_attention_backward(args, row_floats, {}, stream);
    else portable_attention_backward(args, delta, stream);
}

// dq itself is written last: until then its rows hold delta, so that scratch is one float32 dq and nothing more.
void backward_in_any_order(const tn_attention_backward_args& args, bool hopper, int32_t shared_bytes, cudaStream_t stream) {
    float* dq_NTH = static_cast<float*>(args.scratch);
    const RowFloats delta = delta_in_dq(args);
    attention_delta(args, delta, dq_NTH, stream);
    if (hopper) hopper_attention_backward_any_order(args, delta, dq_NTH, {}, stream);
    else portable_attention_backward_any_order(args, delta, dq_NTH, shared_bytes, stream);
    attention_round_dq(args, dq_NTH, !hopper, stream);
}

}  // namespace

RowFloats delta_in_dq(const tn_attention_backward_args& args) {
    int32_t together = 1;  // the most floats that a row of dq has room for, as a power of 2
    while (4 * together <= args.shape.head_dim) together *= 2;
    return {static_cast<float*>(args.dq_TNH.data), args.dq_TNH.token_stride / 2, args.dq_TNH.head_stride / 2, together};
}

void require_attention_shape(const tn_attention_shape& s) {
    if (s.dtype != TN_BFLOAT16 && s.dtype != TN_FLOAT16)
        refuse("dtype", "must be TN_BFLOAT16 or TN_FLOAT16 on CUDA, got " + std::to_string(s.dtype));
    if (s.head_dim % 8 != 0 || s.head_dim > 128)
        refuse("head_dim", "must be a multiple of 8 up to 128 on CUDA, got " + std::to_string(s.head_dim));
    if (!(s.scale > 0)) refuse("scale", "must be positive on CUDA");
    constexpr int64_t most = std::numeric_limits<int32_t>::max();
    if ((s.q_tokens / 64 + s.sequences) * s.q_heads > most) refuse("q_tokens", "is more than one launch can number");
    if ((s.k_tokens / 64 + s.sequences) * s.kv_heads > most) refuse("k_tokens", "is more than one launch can number");
}

void attention_forward(const tn_attention_forward_args& args, void* stream) {
    const tn_attention_shape& s = args.shape;
    const Device device = current_device();
    require_chip(device);
    require_matrix(args.q_TNH, s.q_tokens, s.q_heads, device, "q_TNH");
    require_matrix(args.k_TMH, s.k_tokens, s.kv_heads, device, "k_TMH");
    require_matrix(args.v_TMH, s.k_tokens, s.kv_heads, device, "v_TMH");
    require_matrix(args.out_TNH, s.q_tokens, s.q_heads, device, "out_TNH");
    if (s.q_tokens > 0) require_on_device(args.lse_NT, device, "lse_NT");
    (runs_hopper_kernels(device, s) ? hopper_attention_forward : portable_attention_forward)(args, static_cast<cudaStream_t>(stream));
}

void attention_backward(const tn_attention_backward_args& args, void* stream) {
    const tn_attention_shape& s = args.shape;
    const Device device = current_device();
    require_chip(device);
    require_matrix(args.q_TNH, s.q_tokens, s.q_heads, device, "q_TNH");
    require_matrix(args.k_TMH, s.k_tokens, s.kv_heads, device, "k_TMH");
    require_matrix(args.v_TMH, s.k_tokens, s.kv_heads, device, "v_TMH");
    require_matrix(args.out_TNH, s.q_tokens, s.q_heads, device, "out_TNH");
    require_matrix(args.dout_TNH, s.q_tokens, s.q_heads, device, "dout_TNH");
    require_matrix(args.dq_TNH, s.q_tokens, s.q_heads, device, "dq_TNH");
    require_matrix(args.dk_TMH, s.k_tokens, s.kv_heads, device, "dk_TMH");
    require_matrix(args.dv_TMH, s.k_tokens, s.kv_heads, device, "dv_TMH");
    if (s.q_tokens > 0) {
        require_on_device(args.lse_NT, device, "lse_NT");
        require_on_device(args.scratch, device, "scratch");
        require(reinterpret_cast<uintptr_t>(args.scratch) % 16 == 0, "scratch", "must be aligned to 16 bytes on CUDA");
    }
    const bool hopper = runs_hopper_kernels(device, s);
    const bool any_order_fits = hopper || portable_attention_backward_any_order_fits(s.head_dim, device.shared_bytes);
    if (!args.deterministic && any_order_fits && !deterministic_is_faster(s, device, hopper))
        backward_in_any_order(args, hopper, device.shared_bytes, static_cast<cudaStream_t>(stream));
    else
        backward_in_order(args, hopper, static_cast<cudaStream_t>(stream));
}

int64_t attention_backward_scratch_bytes(const tn_attention_shape& s, bool deterministic) {
    return s.q_tokens * s.q_heads * (deterministic ? 1 : s.head_dim) * static_cast<int64_t>(sizeof(float));
}

}  // namespace trainer::cuda
