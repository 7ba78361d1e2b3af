#include "device_attention.h"

namespace {

const int32_t falling[] = {0, 50, 40}, beyond[] = {0, 40, 65};
alignas(16) uint16_t host[64 * 4 * 64];

// A forward and a backward call that would run, spoiled by `spoil` in the same way, must both be refused.
template <class Spoil>
void both_refused(const std::string& argument, Spoil spoil) {
    DeviceAttention a({4, 2, 64, {40, 24}, {40, 24}, true});
    tn_attention_forward_args forward = a.forward_args();
    tn_attention_backward_args backward = a.backward_args();
    spoil(forward);
    spoil(backward);
    a.poison();
    refused(tn_attention_forward(&forward, nullptr), TN_INVALID_ARGUMENT, argument);
    refused(tn_attention_backward(&backward, nullptr), TN_INVALID_ARGUMENT, argument);
    cuda_ok(cudaDeviceSynchronize());
    const std::vector<uint16_t> untouched = a.out.bits();
    a.out.download();
    expect(a.out.bits() == untouched, argument + ": something was written");
}

template <class Spoil>
void backward_refused(const std::string& argument, Spoil spoil) {
    DeviceAttention a({4, 2, 64, {40, 24}, {40, 24}, true});
    tn_attention_backward_args backward = a.backward_args();
    spoil(backward);
    refused(tn_attention_backward(&backward, nullptr), TN_INVALID_ARGUMENT, argument);
}

}  // namespace

TEST("the device refuses shapes that it has no kernel for, by the argument's name") {
    both_refused("dtype", [](auto& a) { a.shape.dtype = TN_FLOAT32; });
    both_refused("dtype", [](auto& a) { a.shape.dtype = 9; });
    both_refused("head_dim", [](auto& a) { a.shape.head_dim = 60; });
    both_refused("head_dim", [](auto& a) { a.shape.head_dim = 136; });
    both_refused("head_dim", [](auto& a) { a.shape.head_dim = 0; });
    both_refused("scale", [](auto& a) { a.shape.scale = 0; });
    both_refused("scale", [](auto& a) { a.shape.scale = -1; });
}

TEST("the device refuses head counts and boundaries that do not fit") {
    both_refused("q_heads", [](auto& a) { a.shape.q_heads = 3; });
    both_refused("kv_heads", [](auto& a) { a.shape.kv_heads = 0; });
    both_refused("cu_seqlens_q", [](auto& a) { a.shape.cu_seqlens_q = falling; });
    both_refused("cu_seqlens_k", [](auto& a) { a.shape.cu_seqlens_k = beyond; });
    both_refused("cu_seqlens_q", [](auto& a) { a.shape.cu_seqlens_q = nullptr; });
}

TEST("the device refuses pointers that are null, on the host or not aligned, and strides that are not") {
    const auto each = [](const std::string& name, auto member) {
        both_refused(name, [&](auto& a) { member(a).data = nullptr; });
        both_refused(name, [&](auto& a) { member(a).data = host; });
        both_refused(name, [&](auto& a) { member(a).data = static_cast<char*>(member(a).data) + 2; });
        both_refused(name, [&](auto& a) { member(a).token_stride += 4; });
        both_refused(name, [&](auto& a) { member(a).head_stride += 4; });
        both_refused(name, [&](auto& a) { member(a).token_stride = 8; });
    };
    each("q_TNH", [](auto& a) -> tn_tensor& { return a.q_TNH; });
    each("k_TMH", [](auto& a) -> tn_tensor& { return a.k_TMH; });
    each("v_TMH", [](auto& a) -> tn_tensor& { return a.v_TMH; });
    each("out_TNH", [](auto& a) -> tn_tensor& { return a.out_TNH; });
    both_refused("lse_NT", [](auto& a) { a.lse_NT = nullptr; });
    both_refused("lse_NT", [](auto& a) { a.lse_NT = reinterpret_cast<float*>(host); });
    backward_refused("dout_TNH", [](auto& a) { a.dout_TNH.data = host; });
    backward_refused("dq_TNH", [](auto& a) { a.dq_TNH.data = host; });
    backward_refused("dk_TMH", [](auto& a) { a.dk_TMH.token_stride += 4; });
    backward_refused("dv_TMH", [](auto& a) { a.dv_TMH.data = nullptr; });
    backward_refused("scratch", [](auto& a) { a.scratch = host; });
    backward_refused("scratch", [](auto& a) { a.scratch = static_cast<char*>(a.scratch) + 4; });
    backward_refused("scratch_bytes", [](auto& a) { a.scratch_bytes -= 4; });
}

TEST("the device refuses a backward pass that is neither deterministic nor not, and one of any order on less scratch") {
    backward_refused("deterministic", [](auto& a) { a.deterministic = 2; });
    backward_refused("scratch_bytes", [](auto& a) { a.deterministic = 0; });
}

TEST("scratch of attention on the device is one float a query row, in any order one float32 dq and nothing more") {
    DeviceAttention a({4, 2, 64, {40, 24}, {40, 24}, true});
    int64_t bytes = 0;
    ok(tn_attention_backward_scratch_bytes(&a.shape, 1, &bytes));
    expect(bytes == 4 * 4 * 64, "scratch is " + std::to_string(bytes));
    ok(tn_attention_backward_scratch_bytes(&a.shape, 0, &bytes));
    expect(bytes == 4 * 4 * 64 * 64, "scratch is " + std::to_string(bytes));
}

TEST("rotary, SwiGLU and cross-entropy on the device refuse memory that is the host's") {
    Floats on_device(64);
    Values values(TN_FLOAT32, 64);
    tn_rotary_args rotary{};
    rotary.struct_size = sizeof rotary;
    rotary.device = TN_DEVICE_CUDA;
    rotary.dtype = TN_FLOAT32;
    rotary.tokens = rotary.heads = 1;
    rotary.head_dim = 8;
    rotary.x_TNH = {on_device.device(), 8, 8};
    rotary.out_TNH = {values.data(), 8, 8};
    rotary.cos_TH2 = rotary.sin_TH2 = on_device.device();
    refused(tn_rotary(&rotary, nullptr), TN_INVALID_ARGUMENT, "out_TNH");
    rotary.out_TNH = rotary.x_TNH;
    rotary.sin_TH2 = static_cast<float*>(values.data());
    refused(tn_rotary(&rotary, nullptr), TN_INVALID_ARGUMENT, "sin_TH2");

    tn_swiglu_forward_args swiglu{};
    swiglu.struct_size = sizeof swiglu;
    swiglu.device = TN_DEVICE_CUDA;
    swiglu.dtype = TN_FLOAT32;
    swiglu.tokens = 1;
    swiglu.width = 8;
    swiglu.gate_up_T2F = values.data();
    swiglu.gate_up_stride = 16;
    swiglu.out_TF = on_device.device();
    swiglu.out_stride = 8;
    refused(tn_swiglu_forward(&swiglu, nullptr), TN_INVALID_ARGUMENT, "gate_up_T2F");

    const int64_t label = 0;
    tn_cross_entropy_args entropy{};
    entropy.struct_size = sizeof entropy;
    entropy.device = TN_DEVICE_CUDA;
    entropy.dtype = TN_FLOAT32;
    entropy.rows = 1;
    entropy.vocabulary = entropy.logits_stride = 8;
    entropy.logits_CV = on_device.device();
    entropy.loss_C = on_device.device() + 8;
    entropy.labels_C = &label;
    refused(tn_cross_entropy(&entropy, nullptr), TN_INVALID_ARGUMENT, "labels_C");
}

TEST("a label out of range makes its own row NaN on the device") {
    const int64_t rows = 3, vocabulary = 16;
    Values logits(TN_FLOAT32, rows * vocabulary), loss(TN_FLOAT32, rows);
    for (size_t i = 0; i < logits.size(); ++i) logits.set(i, 0.1 * static_cast<double>(i));
    for (int64_t wrong : {vocabulary, int64_t{-1}}) {
        Values copy = logits;
        int64_t labels[] = {2, wrong, 5};
        {
            const Lent lent_logits = lend(copy), lent_loss = lend(loss), lent_labels(labels, sizeof labels);
            tn_cross_entropy_args a{};
            a.struct_size = sizeof a;
            a.device = TN_DEVICE_CUDA;
            a.dtype = TN_FLOAT32;
            a.write_gradient = 1;
            a.rows = rows;
            a.vocabulary = a.logits_stride = vocabulary;
            a.logits_CV = lent_logits.as<void>();
            a.labels_C = lent_labels.as<int64_t>();
            a.loss_C = lent_loss.as<float>();
            a.gradient_scale = 1;
            ok(tn_cross_entropy(&a, nullptr));
        }
        for (size_t i = 0; i < copy.size(); ++i) expect(std::isnan(copy[i]) == (i / vocabulary == 1), "gradient " + std::to_string(i));
        for (size_t r = 0; r < rows; ++r) expect(std::isnan(loss[r]) == (r == 1), "loss " + std::to_string(r));
    }
}
