#include "status.h"

#include <cstring>
#include <omp.h>

namespace trainer {

namespace {

thread_local char last_error[1024] = "";

struct NamedSize {
    const char* name;
    uint32_t size;
};

#define NAMED_SIZE(type) {#type, static_cast<uint32_t>(sizeof(type))}
constexpr NamedSize struct_sizes[] = {
    NAMED_SIZE(tn_tensor),
    NAMED_SIZE(tn_cuda_info),
    NAMED_SIZE(tn_attention_shape),
    NAMED_SIZE(tn_attention_forward_args),
    NAMED_SIZE(tn_attention_backward_args),
    NAMED_SIZE(tn_rms_norm_forward_args),
    NAMED_SIZE(tn_rms_norm_backward_args),
    NAMED_SIZE(tn_rotary_args),
    NAMED_SIZE(tn_swiglu_forward_args),
    NAMED_SIZE(tn_swiglu_backward_args),
    NAMED_SIZE(tn_matmul_args),
    NAMED_SIZE(tn_cross_entropy_args),
    NAMED_SIZE(tn_adamw_args),
    NAMED_SIZE(tn_dropout_args),
};
#undef NAMED_SIZE

}  // namespace

void set_last_error(const char* message) noexcept {
    std::strncpy(last_error, message, sizeof last_error - 1);
}

void refuse(const std::string& argument, const std::string& rule) {
    throw Refusal(TN_INVALID_ARGUMENT, argument + ": " + rule);
}

void require_struct_size(uint32_t actual, size_t expected) {
    if (actual != expected)
        refuse("struct_size", "must be " + std::to_string(expected) + ", got " + std::to_string(actual) +
                                  "; caller and library were built from different headers");
}

void require_device(tn_device device) {
    if (device == TN_DEVICE_CPU) return;
#ifdef TN_HAS_CUDA
    if (device == TN_DEVICE_CUDA) throw Refusal(TN_UNSUPPORTED, "device: only the CPU engine has this operation");
#else
    if (device == TN_DEVICE_CUDA) throw Refusal(TN_UNSUPPORTED, "device: this build has no CUDA engine, only the CPU engine");
#endif
    refuse("device", "must be TN_DEVICE_CPU or TN_DEVICE_CUDA, got " + std::to_string(device));
}

bool on_cuda(tn_device device) {
#ifdef TN_HAS_CUDA
    if (device == TN_DEVICE_CUDA) return true;
#endif
    require_device(device);
    return false;
}

void require_dtype(tn_dtype dtype, const char* argument) {
    if (dtype != TN_FLOAT32 && dtype != TN_BFLOAT16)
        refuse(argument, "must be TN_FLOAT32 or TN_BFLOAT16, got " + std::to_string(dtype));
}

void require_tensor(const tn_tensor& t, int64_t tokens, int64_t heads, int64_t width, const char* argument) {
    if (tokens == 0) return;
    require(t.data != nullptr, argument, "is null");
    if (heads > 1 && t.head_stride < width)
        refuse(argument, "head_stride must be at least " + std::to_string(width) + ", got " + std::to_string(t.head_stride));
    if (tokens > 1 && t.token_stride < width)
        refuse(argument, "token_stride must be at least " + std::to_string(width) + ", got " + std::to_string(t.token_stride));
}

}  // namespace trainer

using namespace trainer;

int32_t tn_abi_version(void) { return TN_ABI_VERSION; }

const char* tn_last_error(void) { return last_error; }

uint32_t tn_sizeof(const char* struct_name) {
    if (struct_name == nullptr) return 0;
    for (const NamedSize& entry : struct_sizes)
        if (std::strcmp(entry.name, struct_name) == 0) return entry.size;
    return 0;
}

tn_status tn_set_threads(int32_t threads) {
    return guard([&] {
        require(threads >= 1, "threads", "must be at least 1");
        omp_set_num_threads(threads);
    });
}
