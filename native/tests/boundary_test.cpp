// Every bad argument is refused by its name, before anything is written.
#include "harness.h"

extern "C" int32_t abi_version_as_c_sees_it(void);

namespace {

float numbers[64];
int64_t labels[4] = {0, 1, -100, 2};
int32_t cu[3] = {0, 2, 4};

// Arguments that are right; each test spoils one of them. run() names the call.
struct AttentionForward {
    tn_attention_forward_args args{};
    AttentionForward() {
        args.struct_size = sizeof args;
        args.shape = {TN_DEVICE_CPU, TN_FLOAT32, 4, 4, 2, 1, 4, 2, cu, cu, 0.5f, 1, -1, 0};
        args.q_TNH = args.out_TNH = {numbers, 8, 4};
        args.k_TMH = args.v_TMH = {numbers, 4, 4};
        args.lse_NT = numbers;
    }
    tn_status run() { return tn_attention_forward(&args, nullptr); }
};
struct AttentionBackward {
    tn_attention_backward_args args{};
    float scratch[1024];
    AttentionBackward() {
        args.struct_size = sizeof args;
        args.shape = AttentionForward().args.shape;
        args.q_TNH = args.out_TNH = args.dout_TNH = args.dq_TNH = {numbers, 8, 4};
        args.k_TMH = args.v_TMH = args.dk_TMH = args.dv_TMH = {numbers, 4, 4};
        args.lse_NT = numbers;
        args.scratch = scratch;
        args.scratch_bytes = sizeof scratch;
    }
    tn_status run() { return tn_attention_backward(&args, nullptr); }
};
struct RmsNormForward {
    tn_rms_norm_forward_args args{};
    RmsNormForward() {
        args.struct_size = sizeof args;
        args.dtype = args.weight_dtype = TN_FLOAT32;
        args.tokens = args.heads = args.width = 2;
        args.x_TND = args.y_TND = {numbers, 4, 2};
        args.weight_D = numbers;
        args.rstd_TN = numbers;
    }
    tn_status run() { return tn_rms_norm_forward(&args, nullptr); }
};
struct RmsNormBackward {
    tn_rms_norm_backward_args args{};
    RmsNormBackward() {
        args.struct_size = sizeof args;
        args.dtype = args.weight_dtype = TN_FLOAT32;
        args.tokens = args.heads = args.width = 2;
        args.sum_TND = args.dy_TND = args.dx_TND = {numbers, 4, 2};
        args.weight_D = numbers;
        args.rstd_TN = numbers;
    }
    tn_status run() { return tn_rms_norm_backward(&args, nullptr); }
};
struct Rotary {
    tn_rotary_args args{};
    Rotary() {
        args.struct_size = sizeof args;
        args.dtype = TN_FLOAT32;
        args.tokens = args.heads = args.head_dim = 2;
        args.x_TNH = args.out_TNH = {numbers, 4, 2};
        args.cos_TH2 = args.sin_TH2 = numbers;
    }
    tn_status run() { return tn_rotary(&args, nullptr); }
};
struct SwigluForward {
    tn_swiglu_forward_args args{};
    SwigluForward() {
        args.struct_size = sizeof args;
        args.dtype = TN_FLOAT32;
        args.tokens = args.width = 2;
        args.gate_up_T2F = numbers;
        args.gate_up_stride = 4;
        args.out_TF = numbers;
        args.out_stride = 2;
    }
    tn_status run() { return tn_swiglu_forward(&args, nullptr); }
};
struct SwigluBackward {
    tn_swiglu_backward_args args{};
    SwigluBackward() {
        args.struct_size = sizeof args;
        args.dtype = TN_FLOAT32;
        args.tokens = args.width = 2;
        args.gate_up_T2F = args.dout_TF = numbers;
        args.dgate_up_T2F = numbers;
        args.gate_up_stride = args.dgate_up_stride = 4;
        args.dout_stride = 2;
    }
    tn_status run() { return tn_swiglu_backward(&args, nullptr); }
};
struct Matmul {
    tn_matmul_args args{};
    Matmul() {
        args.struct_size = sizeof args;
        args.dtype = args.result_dtype = TN_FLOAT32;
        args.rows = 2;
        args.columns = 3;
        args.depth = 4;
        args.a = args.b = numbers;
        args.c_MN = numbers + 32;
        args.a_stride = 4;
        args.b_stride = args.c_stride = 3;
    }
    tn_status run() { return tn_matmul(&args, nullptr); }
};
struct CrossEntropy {
    tn_cross_entropy_args args{};
    CrossEntropy() {
        args.struct_size = sizeof args;
        args.dtype = TN_FLOAT32;
        args.rows = 4;
        args.vocabulary = args.logits_stride = 3;
        args.logits_CV = args.loss_C = numbers;
        args.labels_C = labels;
    }
    tn_status run() { return tn_cross_entropy(&args, nullptr); }
};
struct AdamW {
    tn_adamw_args args{};
    AdamW() {
        args.struct_size = sizeof args;
        args.gradient_dtype = TN_FLOAT32;
        args.count = 4;
        args.parameter = args.first_moment = args.second_moment = numbers;
        args.gradient = numbers;
        args.step = 1;
    }
    tn_status run() { return tn_adamw(&args, nullptr); }
};
struct Dropout {
    tn_dropout_args args{};
    Dropout() {
        args.struct_size = sizeof args;
        args.dtype = TN_FLOAT32;
        args.count = 4;
        args.x = numbers;
        args.y = numbers;
    }
    tn_status run() { return tn_dropout(&args, nullptr); }
};

template <class Call, class Spoil>
void refuses(const char* argument, Spoil spoil, tn_status expected = TN_INVALID_ARGUMENT) {
    Call call;
    for (float& number : numbers) number = 0.25f;
    spoil(call.args);
    refused(call.run(), expected, argument);
    for (float number : numbers) expect(number == 0.25f, std::string(argument) + ": something was written");
}

template <class Call>
void accepts() {
    Call call;
    ok(call.run());
}

template <class Call, class Device>
void refuses_what_all_have_in_common(Device device) {
    accepts<Call>();
    refuses<Call>("struct_size", [](auto& a) { a.struct_size -= 4; });
    refuses<Call>("device", [&](auto& a) { device(a) = 7; });
#ifndef TN_HAS_CUDA
    refuses<Call>("device", [&](auto& a) { device(a) = TN_DEVICE_CUDA; }, TN_UNSUPPORTED);
#endif
}

const auto own_device = [](auto& a) -> tn_device& { return a.device; };
const auto shape_device = [](auto& a) -> tn_device& { return a.shape.device; };

template <class Call>
void attention_refuses_bad_shapes() {
    refuses_what_all_have_in_common<Call>(shape_device);
    refuses<Call>("dtype", [](auto& a) { a.shape.dtype = 0; });
    refuses<Call>("q_tokens", [](auto& a) { a.shape.q_tokens = -1; });
    refuses<Call>("k_tokens", [](auto& a) { a.shape.k_tokens = -1; });
    refuses<Call>("kv_heads", [](auto& a) { a.shape.kv_heads = 0; });
    refuses<Call>("q_heads", [](auto& a) { a.shape.q_heads = 0; });
    refuses<Call>("q_heads", [](auto& a) { a.shape.kv_heads = 2, a.shape.q_heads = 3; });
    refuses<Call>("head_dim", [](auto& a) { a.shape.head_dim = 0; });
    refuses<Call>("head_dim", [](auto& a) { a.shape.head_dim = 257; });
    refuses<Call>("sequences", [](auto& a) { a.shape.sequences = -1; });
    refuses<Call>("cu_seqlens_q", [](auto& a) { a.shape.cu_seqlens_q = nullptr; });
    refuses<Call>("cu_seqlens_k", [](auto& a) { a.shape.cu_seqlens_k = nullptr; });
    static int32_t late[3] = {1, 2, 4}, descending[3] = {0, 5, 4}, short_of_tokens[3] = {0, 2, 3};
    for (int32_t* bad : {late, descending, short_of_tokens}) {
        refuses<Call>("cu_seqlens_q", [&](auto& a) { a.shape.cu_seqlens_q = bad; });
        refuses<Call>("cu_seqlens_k", [&](auto& a) { a.shape.cu_seqlens_k = bad; });
    }
    refuses<Call>("scale", [](auto& a) { a.shape.scale = NAN; });
    refuses<Call>("causal", [](auto& a) { a.shape.causal = 2; });
    refuses<Call>("window", [](auto& a) { a.shape.window = -2; });
    refuses<Call>("reserved", [](auto& a) { a.shape.reserved = 1; });
    refuses<Call>("q_TNH", [](auto& a) { a.q_TNH.data = nullptr; });
    refuses<Call>("q_TNH", [](auto& a) { a.q_TNH.head_stride = 3; });
    refuses<Call>("k_TMH", [](auto& a) { a.k_TMH.data = nullptr; });
    refuses<Call>("k_TMH", [](auto& a) { a.k_TMH.token_stride = 3; });
    refuses<Call>("v_TMH", [](auto& a) { a.v_TMH.data = nullptr; });
    refuses<Call>("out_TNH", [](auto& a) { a.out_TNH.data = nullptr; });
    refuses<Call>("lse_NT", [](auto& a) { a.lse_NT = nullptr; });
}

template <class Call>
void norm_refuses_bad_shapes() {
    refuses_what_all_have_in_common<Call>(own_device);
    refuses<Call>("dtype", [](auto& a) { a.dtype = 3; });
    refuses<Call>("weight_dtype", [](auto& a) { a.weight_dtype = 3; });
    refuses<Call>("tokens", [](auto& a) { a.tokens = -1; });
    refuses<Call>("heads", [](auto& a) { a.heads = 0; });
    refuses<Call>("width", [](auto& a) { a.width = 0; });
    refuses<Call>("weight_D", [](auto& a) { a.weight_D = nullptr; });
    refuses<Call>("rstd_TN", [](auto& a) { a.rstd_TN = nullptr; });
}

}  // namespace

TEST("the header is C and both languages see one version") {
    expect(tn_abi_version() == TN_ABI_VERSION && abi_version_as_c_sees_it() == TN_ABI_VERSION, "versions differ");
}

TEST("the library tells the size of each struct by name") {
    expect(tn_sizeof("tn_attention_forward_args") == sizeof(tn_attention_forward_args), "tn_attention_forward_args");
    expect(tn_sizeof("tn_dropout_args") == sizeof(tn_dropout_args), "tn_dropout_args");
    expect(tn_sizeof("tn_nothing") == 0 && tn_sizeof(nullptr) == 0, "an unknown name has a size");
}

TEST("null arguments are refused by every call") {
    refused(tn_attention_forward(nullptr, nullptr), TN_INVALID_ARGUMENT, "args");
    refused(tn_attention_backward(nullptr, nullptr), TN_INVALID_ARGUMENT, "args");
    refused(tn_attention_backward_scratch_bytes(nullptr, 1, nullptr), TN_INVALID_ARGUMENT, "shape");
    refused(tn_rms_norm_forward(nullptr, nullptr), TN_INVALID_ARGUMENT, "args");
    refused(tn_rms_norm_backward(nullptr, nullptr), TN_INVALID_ARGUMENT, "args");
    refused(tn_rotary(nullptr, nullptr), TN_INVALID_ARGUMENT, "args");
    refused(tn_swiglu_forward(nullptr, nullptr), TN_INVALID_ARGUMENT, "args");
    refused(tn_swiglu_backward(nullptr, nullptr), TN_INVALID_ARGUMENT, "args");
    refused(tn_matmul(nullptr, nullptr), TN_INVALID_ARGUMENT, "args");
    refused(tn_cross_entropy(nullptr, nullptr), TN_INVALID_ARGUMENT, "args");
    refused(tn_adamw(nullptr, nullptr), TN_INVALID_ARGUMENT, "args");
    refused(tn_dropout(nullptr, nullptr), TN_INVALID_ARGUMENT, "args");
    refused(tn_set_threads(0), TN_INVALID_ARGUMENT, "threads");
}

TEST("attention forward refuses bad arguments by name") { attention_refuses_bad_shapes<AttentionForward>(); }

TEST("attention backward refuses bad arguments by name") {
    attention_refuses_bad_shapes<AttentionBackward>();
    refuses<AttentionBackward>("dout_TNH", [](auto& a) { a.dout_TNH.data = nullptr; });
    refuses<AttentionBackward>("dq_TNH", [](auto& a) { a.dq_TNH.data = nullptr; });
    refuses<AttentionBackward>("dk_TMH", [](auto& a) { a.dk_TMH.data = nullptr; });
    refuses<AttentionBackward>("dv_TMH", [](auto& a) { a.dv_TMH.data = nullptr; });
    refuses<AttentionBackward>("deterministic", [](auto& a) { a.deterministic = 2; });
    refuses<AttentionBackward>("scratch", [](auto& a) { a.scratch = nullptr; });
    refuses<AttentionBackward>("scratch_bytes", [](auto& a) { a.scratch_bytes = 100; });
}

TEST("RMSNorm refuses bad arguments by name") {
    norm_refuses_bad_shapes<RmsNormForward>();
    norm_refuses_bad_shapes<RmsNormBackward>();
    refuses<RmsNormForward>("epsilon", [](auto& a) { a.epsilon = -1; });
    refuses<RmsNormForward>("x_TND", [](auto& a) { a.x_TND.data = nullptr; });
    refuses<RmsNormForward>("y_TND", [](auto& a) { a.y_TND.token_stride = 1; });
    refuses<RmsNormForward>("sum_TND", [](auto& a) { a.residual_TND = a.x_TND; });
    refuses<RmsNormForward>("sum_TND", [](auto& a) { a.sum_TND = a.x_TND; });
    refuses<RmsNormBackward>("sum_TND", [](auto& a) { a.sum_TND.data = nullptr; });
    refuses<RmsNormBackward>("dy_TND", [](auto& a) { a.dy_TND.data = nullptr; });
    refuses<RmsNormBackward>("dx_TND", [](auto& a) { a.dx_TND.head_stride = 1; });
}

TEST("rotary refuses bad arguments by name") {
    refuses_what_all_have_in_common<Rotary>(own_device);
    refuses<Rotary>("dtype", [](auto& a) { a.dtype = 0; });
    refuses<Rotary>("inverse", [](auto& a) { a.inverse = 2; });
    refuses<Rotary>("head_dim", [](auto& a) { a.head_dim = 3; });
    refuses<Rotary>("x_TNH", [](auto& a) { a.x_TNH.data = nullptr; });
    refuses<Rotary>("out_TNH", [](auto& a) { a.out_TNH.data = nullptr; });
    refuses<Rotary>("cos_TH2", [](auto& a) { a.cos_TH2 = nullptr; });
    refuses<Rotary>("sin_TH2", [](auto& a) { a.sin_TH2 = nullptr; });
}

TEST("SwiGLU refuses bad arguments by name") {
    refuses_what_all_have_in_common<SwigluForward>(own_device);
    refuses_what_all_have_in_common<SwigluBackward>(own_device);
    refuses<SwigluForward>("dtype", [](auto& a) { a.dtype = 0; });
    refuses<SwigluForward>("width", [](auto& a) { a.width = 0; });
    refuses<SwigluForward>("gate_up_T2F", [](auto& a) { a.gate_up_T2F = nullptr; });
    refuses<SwigluForward>("gate_up_stride", [](auto& a) { a.gate_up_stride = 3; });
    refuses<SwigluForward>("out_stride", [](auto& a) { a.out_stride = 1; });
    refuses<SwigluBackward>("dout_TF", [](auto& a) { a.dout_TF = nullptr; });
    refuses<SwigluBackward>("dgate_up_T2F", [](auto& a) { a.dgate_up_T2F = nullptr; });
}

TEST("a matrix product refuses bad arguments by name") {
    refuses_what_all_have_in_common<Matmul>(own_device);
    refuses<Matmul>("dtype", [](auto& a) { a.dtype = 0; });
    refuses<Matmul>("result_dtype", [](auto& a) { a.result_dtype = 3; });
    refuses<Matmul>("a_transposed", [](auto& a) { a.a_transposed = 2; });
    refuses<Matmul>("b_transposed", [](auto& a) { a.b_transposed = -1; });
    refuses<Matmul>("accumulate", [](auto& a) { a.accumulate = 2; });
    refuses<Matmul>("reserved", [](auto& a) { a.reserved = 1; });
    refuses<Matmul>("rows", [](auto& a) { a.rows = -1; });
    refuses<Matmul>("columns", [](auto& a) { a.columns = -1; });
    refuses<Matmul>("depth", [](auto& a) { a.depth = -1; });
    refuses<Matmul>("a", [](auto& a) { a.a = nullptr; });
    refuses<Matmul>("a_stride", [](auto& a) { a.a_stride = 3; });
    refuses<Matmul>("a_stride", [](auto& a) { a.a_transposed = 1, a.a_stride = 1; });
    refuses<Matmul>("b", [](auto& a) { a.b = nullptr; });
    refuses<Matmul>("b_stride", [](auto& a) { a.b_stride = 2; });
    refuses<Matmul>("b_stride", [](auto& a) { a.b_transposed = 1; });
    refuses<Matmul>("c_MN", [](auto& a) { a.c_MN = nullptr; });
    refuses<Matmul>("c_stride", [](auto& a) { a.c_stride = 2; });
}

TEST("cross-entropy refuses bad arguments by name, a bad label with its row") {
    refuses_what_all_have_in_common<CrossEntropy>(own_device);
    refuses<CrossEntropy>("dtype", [](auto& a) { a.dtype = 0; });
    refuses<CrossEntropy>("rows", [](auto& a) { a.rows = -1; });
    refuses<CrossEntropy>("vocabulary", [](auto& a) { a.vocabulary = 0; });
    refuses<CrossEntropy>("logits_CV", [](auto& a) { a.logits_CV = nullptr; });
    refuses<CrossEntropy>("logits_stride", [](auto& a) { a.logits_stride = 2; });
    refuses<CrossEntropy>("labels_C", [](auto& a) { a.labels_C = nullptr; });
    refuses<CrossEntropy>("loss_C", [](auto& a) { a.loss_C = nullptr; });
    refuses<CrossEntropy>("gradient_scale", [](auto& a) { a.gradient_scale = INFINITY; });
    refuses<CrossEntropy>("labels_C", [](auto& a) { a.vocabulary = a.logits_stride = 2; });
    expect(std::string(tn_last_error()).find("row 3 has label 2") != std::string::npos, tn_last_error());
}

TEST("AdamW and its companions refuse bad arguments by name") {
    refuses_what_all_have_in_common<AdamW>(own_device);
    refuses<AdamW>("gradient_dtype", [](auto& a) { a.gradient_dtype = 0; });
    refuses<AdamW>("count", [](auto& a) { a.count = -1; });
    refuses<AdamW>("parameter", [](auto& a) { a.parameter = nullptr; });
    refuses<AdamW>("first_moment", [](auto& a) { a.first_moment = nullptr; });
    refuses<AdamW>("second_moment", [](auto& a) { a.second_moment = nullptr; });
    refuses<AdamW>("gradient", [](auto& a) { a.gradient = nullptr; });
    refuses<AdamW>("learning_rate", [](auto& a) { a.learning_rate = -1; });
    refuses<AdamW>("beta1", [](auto& a) { a.beta1 = 1; });
    refuses<AdamW>("beta2", [](auto& a) { a.beta2 = -0.1; });
    refuses<AdamW>("epsilon", [](auto& a) { a.epsilon = -1; });
    refuses<AdamW>("weight_decay", [](auto& a) { a.weight_decay = NAN; });
    refuses<AdamW>("gradient_scale", [](auto& a) { a.gradient_scale = NAN; });
    refuses<AdamW>("step", [](auto& a) { a.step = 0; });
    double result;
    refused(tn_sum_of_squares(TN_DEVICE_CPU, TN_FLOAT32, 4, nullptr, &result, nullptr), TN_INVALID_ARGUMENT, "x");
    refused(tn_sum_of_squares(TN_DEVICE_CPU, TN_FLOAT32, 4, numbers, nullptr, nullptr), TN_INVALID_ARGUMENT, "result");
    refused(tn_accumulate(TN_DEVICE_CPU, 9, 4, numbers, numbers, nullptr), TN_INVALID_ARGUMENT, "addend_dtype");
    refused(tn_accumulate(TN_DEVICE_CPU, TN_FLOAT32, 4, nullptr, numbers, nullptr), TN_INVALID_ARGUMENT, "sum");
}

TEST("dropout refuses bad arguments by name") {
    refuses_what_all_have_in_common<Dropout>(own_device);
    refuses<Dropout>("dtype", [](auto& a) { a.dtype = 0; });
    refuses<Dropout>("probability", [](auto& a) { a.probability = 1; });
    refuses<Dropout>("count", [](auto& a) { a.count = -1; });
    refuses<Dropout>("offset", [](auto& a) { a.offset = 2; });
    refuses<Dropout>("x", [](auto& a) { a.x = nullptr; });
    refuses<Dropout>("y", [](auto& a) { a.y = nullptr; });
}
