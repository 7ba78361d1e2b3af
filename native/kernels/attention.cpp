#include "engine.h"
#ifdef TN_HAS_CUDA
#include "cuda/engine.h"
#endif
#include "status.h"

#include <cmath>

using namespace trainer;

namespace {

void require_boundaries(const int32_t* cu, int32_t sequences, int64_t tokens, const char* argument) {
    if (sequences == 0 && tokens == 0) return;
    require(cu != nullptr, argument, "is null");
    if (cu[0] != 0) refuse(argument, "must start at 0, got " + std::to_string(cu[0]));
    for (int32_t s = 0; s < sequences; ++s)
        if (cu[s + 1] < cu[s])
            refuse(argument, "must never descend, but entry " + std::to_string(s + 1) + " is " + std::to_string(cu[s + 1]) +
                                 " after " + std::to_string(cu[s]));
    if (cu[sequences] != tokens)
        refuse(argument, "must end at the number of tokens, " + std::to_string(tokens) + ", got " + std::to_string(cu[sequences]));
}

// Whether the CUDA engine is in this build and asked for; it has its own rule for the dtype.
bool on_cuda([[maybe_unused]] const tn_attention_shape& s) {
#ifdef TN_HAS_CUDA
    return s.device == TN_DEVICE_CUDA;
#else
    return false;
#endif
}

int64_t backward_scratch_bytes(const tn_attention_shape& s, [[maybe_unused]] int32_t deterministic) {
#ifdef TN_HAS_CUDA
    if (on_cuda(s)) return cuda::attention_backward_scratch_bytes(s, deterministic);
#endif
    return cpu_engine().attention_backward_scratch_bytes(s);
}

void require_deterministic(int32_t deterministic) {
    require(deterministic == 0 || deterministic == 1, "deterministic", "must be 0 or 1");
}

void require_shape(const tn_attention_shape& s) {
    if (!on_cuda(s)) {
        require_device(s.device);
        require_dtype(s.dtype, "dtype");
    }
    require(s.q_tokens >= 0, "q_tokens", "must not be negative");
    require(s.k_tokens >= 0, "k_tokens", "must not be negative");
    require(s.kv_heads >= 1, "kv_heads", "must be at least 1");
    require(s.q_heads >= 1, "q_heads", "must be at least 1");
    if (s.q_heads % s.kv_heads != 0)
        refuse("q_heads", "must be a multiple of kv_heads, got " + std::to_string(s.q_heads) + " and " + std::to_string(s.kv_heads));
    if (s.head_dim < 1 || s.head_dim > 256) refuse("head_dim", "must be in 1..256, got " + std::to_string(s.head_dim));
    require(s.sequences >= 0, "sequences", "must not be negative");
    require_boundaries(s.cu_seqlens_q, s.sequences, s.q_tokens, "cu_seqlens_q");
    require_boundaries(s.cu_seqlens_k, s.sequences, s.k_tokens, "cu_seqlens_k");
    require(std::isfinite(s.scale), "scale", "must be finite");
    require(s.causal == 0 || s.causal == 1, "causal", "must be 0 or 1");
    require(s.window >= -1, "window", "must be -1 (no limit) or at least 0");
    require(s.reserved == 0, "reserved", "must be 0");
#ifdef TN_HAS_CUDA
    if (on_cuda(s)) cuda::require_attention_shape(s);
#endif
}

}  // namespace

tn_status tn_attention_forward(const tn_attention_forward_args* args, [[maybe_unused]] void* stream) {
    return guard([&] {
        require(args != nullptr, "args", "is null");
        require_struct_size(args->struct_size, sizeof *args);
        const tn_attention_shape& s = args->shape;
        require_shape(s);
        require_tensor(args->q_TNH, s.q_tokens, s.q_heads, s.head_dim, "q_TNH");
        require_tensor(args->k_TMH, s.k_tokens, s.kv_heads, s.head_dim, "k_TMH");
        require_tensor(args->v_TMH, s.k_tokens, s.kv_heads, s.head_dim, "v_TMH");
        require_tensor(args->out_TNH, s.q_tokens, s.q_heads, s.head_dim, "out_TNH");
        require(s.q_tokens == 0 || args->lse_NT != nullptr, "lse_NT", "is null");
#ifdef TN_HAS_CUDA
        if (on_cuda(s)) return cuda::attention_forward(*args, stream);
#endif
        cpu_engine().attention_forward(*args);
    });
}

tn_status tn_attention_backward(const tn_attention_backward_args* args, [[maybe_unused]] void* stream) {
    return guard([&] {
        require(args != nullptr, "args", "is null");
        require_struct_size(args->struct_size, sizeof *args);
        const tn_attention_shape& s = args->shape;
        require_deterministic(args->deterministic);
        require_shape(s);
        require_tensor(args->q_TNH, s.q_tokens, s.q_heads, s.head_dim, "q_TNH");
        require_tensor(args->k_TMH, s.k_tokens, s.kv_heads, s.head_dim, "k_TMH");
        require_tensor(args->v_TMH, s.k_tokens, s.kv_heads, s.head_dim, "v_TMH");
        require_tensor(args->out_TNH, s.q_tokens, s.q_heads, s.head_dim, "out_TNH");
        require_tensor(args->dout_TNH, s.q_tokens, s.q_heads, s.head_dim, "dout_TNH");
        require_tensor(args->dq_TNH, s.q_tokens, s.q_heads, s.head_dim, "dq_TNH");
        require_tensor(args->dk_TMH, s.k_tokens, s.kv_heads, s.head_dim, "dk_TMH");
        require_tensor(args->dv_TMH, s.k_tokens, s.kv_heads, s.head_dim, "dv_TMH");
        require(s.q_tokens == 0 || args->lse_NT != nullptr, "lse_NT", "is null");
        const int64_t needed = backward_scratch_bytes(s, args->deterministic);
        if (args->scratch_bytes < needed)
            refuse("scratch_bytes", "must be at least " + std::to_string(needed) + ", got " + std::to_string(args->scratch_bytes));
        require(needed == 0 || args->scratch != nullptr, "scratch", "is null");
        require(reinterpret_cast<uintptr_t>(args->scratch) % alignof(float) == 0, "scratch", "must be aligned to 4 bytes");
#ifdef TN_HAS_CUDA
        if (on_cuda(s)) return cuda::attention_backward(*args, stream);
#endif
        cpu_engine().attention_backward(*args);
    });
}

tn_status tn_attention_backward_scratch_bytes(const tn_attention_shape* shape, int32_t deterministic, int64_t* bytes) {
    return guard([&] {
        require(shape != nullptr, "shape", "is null");
        require(bytes != nullptr, "bytes", "is null");
        require_deterministic(deterministic);
        require_shape(*shape);
        *bytes = backward_scratch_bytes(*shape, deterministic);
    });
}
