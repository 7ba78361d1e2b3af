using System.Runtime.CompilerServices;

namespace Trainer.Worker.Kernels;

// The argument structs of trainer_native.h, field by field; a test compares every size with the library's. Parameterless
// constructors fill in struct_size.

internal struct tn_tensor
{
    public nint data;
    public long token_stride;
    public long head_stride;
}

internal unsafe struct tn_cuda_info
{
    public uint struct_size;
    public int built;
    public int runtime_version;
    public int driver_version;
    public int devices;
    public int major;
    public int minor;
    public int multiprocessors;
    public int has_image;
    public int reserved;
    public long memory_bytes;
    public fixed byte name[256];
    public fixed byte problem[256];

    public tn_cuda_info() => struct_size = (uint)Unsafe.SizeOf<tn_cuda_info>();
}

internal struct tn_attention_shape
{
    public KernelDevice device;
    public KernelDtype dtype;
    public long q_tokens;
    public long k_tokens;
    public int q_heads;
    public int kv_heads;
    public int head_dim;
    public int sequences;
    public nint cu_seqlens_q;
    public nint cu_seqlens_k;
    public float scale;
    public int causal;
    public int window;
    public int reserved;
}

internal struct tn_attention_forward_args
{
    public uint struct_size;
    public tn_attention_shape shape;
    public tn_tensor q_TNH;
    public tn_tensor k_TMH;
    public tn_tensor v_TMH;
    public tn_tensor out_TNH;
    public nint lse_NT;

    public tn_attention_forward_args() => struct_size = (uint)Unsafe.SizeOf<tn_attention_forward_args>();
}

internal struct tn_attention_backward_args
{
    public uint struct_size;
    public int deterministic;
    public tn_attention_shape shape;
    public tn_tensor q_TNH;
    public tn_tensor k_TMH;
    public tn_tensor v_TMH;
    public tn_tensor out_TNH;
    public nint lse_NT;
    public tn_tensor dout_TNH;
    public tn_tensor dq_TNH;
    public tn_tensor dk_TMH;
    public tn_tensor dv_TMH;
    public nint scratch;
    public long scratch_bytes;

    public tn_attention_backward_args() => struct_size = (uint)Unsafe.SizeOf<tn_attention_backward_args>();
}

internal struct tn_rms_norm_forward_args
{
    public uint struct_size;
    public KernelDevice device;
    public KernelDtype dtype;
    public KernelDtype weight_dtype;
    public long tokens;
    public long heads;
    public long width;
    public float epsilon;
    public uint reserved;
    public tn_tensor x_TND;
    public tn_tensor residual_TND;
    public tn_tensor sum_TND;
    public tn_tensor y_TND;
    public nint weight_D;
    public nint rstd_TN;

    public tn_rms_norm_forward_args() => struct_size = (uint)Unsafe.SizeOf<tn_rms_norm_forward_args>();
}

internal struct tn_rms_norm_backward_args
{
    public uint struct_size;
    public KernelDevice device;
    public KernelDtype dtype;
    public KernelDtype weight_dtype;
    public long tokens;
    public long heads;
    public long width;
    public tn_tensor sum_TND;
    public tn_tensor dy_TND;
    public tn_tensor dsum_TND;
    public tn_tensor dx_TND;
    public nint weight_D;
    public nint dweight_D;
    public nint rstd_TN;
    public nint scratch;
    public long scratch_bytes;

    public tn_rms_norm_backward_args() => struct_size = (uint)Unsafe.SizeOf<tn_rms_norm_backward_args>();
}

internal struct tn_rotary_args
{
    public uint struct_size;
    public KernelDevice device;
    public KernelDtype dtype;
    public int inverse;
    public long tokens;
    public long heads;
    public long head_dim;
    public tn_tensor x_TNH;
    public tn_tensor out_TNH;
    public nint cos_TH2;
    public nint sin_TH2;

    public tn_rotary_args() => struct_size = (uint)Unsafe.SizeOf<tn_rotary_args>();
}

internal struct tn_swiglu_forward_args
{
    public uint struct_size;
    public KernelDevice device;
    public KernelDtype dtype;
    public uint reserved;
    public long tokens;
    public long width;
    public nint gate_up_T2F;
    public long gate_up_stride;
    public nint out_TF;
    public long out_stride;

    public tn_swiglu_forward_args() => struct_size = (uint)Unsafe.SizeOf<tn_swiglu_forward_args>();
}

internal struct tn_swiglu_backward_args
{
    public uint struct_size;
    public KernelDevice device;
    public KernelDtype dtype;
    public uint reserved;
    public long tokens;
    public long width;
    public nint gate_up_T2F;
    public long gate_up_stride;
    public nint dout_TF;
    public long dout_stride;
    public nint dgate_up_T2F;
    public long dgate_up_stride;

    public tn_swiglu_backward_args() => struct_size = (uint)Unsafe.SizeOf<tn_swiglu_backward_args>();
}

internal struct tn_matmul_args
{
    public uint struct_size;
    public KernelDevice device;
    public KernelDtype dtype;
    public KernelDtype result_dtype;
    public int a_transposed;
    public int b_transposed;
    public int accumulate;
    public uint reserved;
    public long rows;
    public long columns;
    public long depth;
    public nint a;
    public long a_stride;
    public nint b;
    public long b_stride;
    public nint c_MN;
    public long c_stride;

    public tn_matmul_args() => struct_size = (uint)Unsafe.SizeOf<tn_matmul_args>();
}

internal struct tn_cross_entropy_args
{
    public uint struct_size;
    public KernelDevice device;
    public KernelDtype dtype;
    public int write_gradient;
    public long rows;
    public long vocabulary;
    public nint logits_CV;
    public long logits_stride;
    public nint labels_C;
    public nint loss_C;
    public float gradient_scale;
    public uint reserved;

    public tn_cross_entropy_args() => struct_size = (uint)Unsafe.SizeOf<tn_cross_entropy_args>();
}

internal struct tn_adamw_args
{
    public uint struct_size;
    public KernelDevice device;
    public KernelDtype gradient_dtype;
    public uint reserved;
    public long count;
    public nint parameter;
    public nint first_moment;
    public nint second_moment;
    public nint gradient;
    public nint bfloat16_copy;
    public double learning_rate;
    public double beta1;
    public double beta2;
    public double epsilon;
    public double weight_decay;
    public double gradient_scale;
    public long step;

    public tn_adamw_args() => struct_size = (uint)Unsafe.SizeOf<tn_adamw_args>();
}

internal struct tn_dropout_args
{
    public uint struct_size;
    public KernelDevice device;
    public KernelDtype dtype;
    public float probability;
    public long count;
    public nint x;
    public nint y;
    public ulong seed;
    public ulong offset;

    public tn_dropout_args() => struct_size = (uint)Unsafe.SizeOf<tn_dropout_args>();
}
