"""Rotary, SwiGLU, cross-entropy, RMSNorm and AdamW of the CUDA engine beside the same by PyTorch's operators: microseconds, and bytes that must
move over that time.

    python3 benchmarks/H200/rows.py native/build/cuda/libtrainer_kernels.so

The shapes are those of one step of Qwen2.5-0.5B on 16,384 tokens, bf16. Needs PyTorch with Triton.
"""
import ctypes as C, os, statistics, sys
import torch
from triton.testing import do_bench

I32, I64, U32, P, F = C.c_int32, C.c_int64, C.c_uint32, C.c_void_p, C.c_float


def struct(name, *fields):
    return type(name, (C.Structure,), {"_fields_": [("struct_size", U32), ("device", I32), ("dtype", I32)] + list(fields)})


class Tensor(C.Structure):
    _fields_ = [("data", P), ("token_stride", I64), ("head_stride", I64)]


Rotary = struct("Rotary", ("inverse", I32), ("tokens", I64), ("heads", I64), ("head_dim", I64), ("x", Tensor), ("out", Tensor),
                ("cos", P), ("sin", P))
Forward = struct("Forward", ("reserved", U32), ("tokens", I64), ("width", I64), ("gate_up", P), ("gate_up_stride", I64), ("out", P),
                 ("out_stride", I64))
Backward = struct("Backward", ("reserved", U32), ("tokens", I64), ("width", I64), ("gate_up", P), ("gate_up_stride", I64), ("dout", P),
                  ("dout_stride", I64), ("dgate_up", P), ("dgate_up_stride", I64))
Norm = struct("Norm", ("weight_dtype", I32), ("tokens", I64), ("heads", I64), ("width", I64), ("epsilon", F), ("reserved", U32), ("x", Tensor),
              ("residual", Tensor), ("sum", Tensor), ("y", Tensor), ("weight", P), ("rstd", P))
NormBackward = struct("NormBackward", ("weight_dtype", I32), ("tokens", I64), ("heads", I64), ("width", I64), ("sum", Tensor), ("dy", Tensor),
                      ("dsum", Tensor), ("dx", Tensor), ("weight", P), ("dweight", P), ("rstd", P), ("scratch", P), ("scratch_bytes", I64))
D = C.c_double
Step = struct("Step", ("reserved", U32), ("count", I64), ("parameter", P), ("first", P), ("second", P), ("gradient", P), ("copy", P), ("lr", D),
              ("beta1", D), ("beta2", D), ("epsilon", D), ("decay", D), ("scale", D), ("step", I64))
Entropy = struct("Entropy", ("write_gradient", I32), ("rows", I64), ("vocabulary", I64), ("logits", P), ("stride", I64), ("labels", P),
                 ("loss", P), ("scale", F), ("reserved", U32))


def caller(library, name, args):
    def call():
        if getattr(library, name)(C.byref(args), P(torch.cuda.current_stream().cuda_stream)):
            raise RuntimeError(library.tn_last_error().decode())
    return call


def report(name, moved, ours, theirs):
    us = [1e3 * statistics.median(do_bench(f, warmup=10, rep=60, return_mode="median") for _ in range(3)) for f in (ours, theirs)]
    print("%s: ours %.0f us, %.0f GB/s; PyTorch's operators %.0f us" % (name, us[0], moved / us[0] / 1e3, us[1]), flush=True)


def same(name, x, y, limit=1e-2):
    error = ((x.float() - y.float()).norm() / y.float().norm()).item()
    print(name, "relative difference %.2g" % error if error <= limit else "DIFFERS: %g" % error, flush=True)


def main():
    library = C.CDLL(os.path.abspath(sys.argv[1]))
    library.tn_last_error.restype = C.c_char_p
    torch.manual_seed(0)
    print(torch.cuda.get_device_name(), "PyTorch", torch.__version__)
    t, n, h, f, v, rows = 16384, 14, 64, 4864, 151936, 1766  # rows: logits of 512 MiB
    bf16 = dict(device="cuda", dtype=torch.bfloat16)

    x, out = torch.randn(t, n, h, **bf16), torch.empty(t, n, h, **bf16)
    angles = torch.rand(t, h // 2, device="cuda") * 6
    cos, sin = angles.cos(), angles.sin()
    rotary = Rotary(C.sizeof(Rotary), 1, 2, 0, t, n, h, Tensor(x.data_ptr(), n * h, h), Tensor(out.data_ptr(), n * h, h), cos.data_ptr(), sin.data_ptr())

    def rotate():
        wide, c, s = x.float(), cos[:, None], sin[:, None]
        low, high = wide[..., :h // 2], wide[..., h // 2:]
        return torch.cat([(low * c).addcmul_(high, s, value=-1), (high * c).addcmul_(low, s)], 2).to(x.dtype)

    call = caller(library, "tn_rotary", rotary)
    call()
    same("rotary", out, rotate())
    report("rotary, 14 heads of 64", 4 * x.numel() + 8 * cos.numel(), call, rotate)

    gate_up, dout = torch.randn(t, 2 * f, **bf16), torch.randn(t, f, **bf16)
    result, gradient = torch.empty(t, f, **bf16), torch.empty(t, 2 * f, **bf16)
    forward = Forward(C.sizeof(Forward), 1, 2, 0, t, f, gate_up.data_ptr(), 2 * f, result.data_ptr(), f)
    backward = Backward(C.sizeof(Backward), 1, 2, 0, t, f, gate_up.data_ptr(), 2 * f, dout.data_ptr(), f, gradient.data_ptr(), 2 * f)
    gate, up = gate_up[:, :f], gate_up[:, f:]

    def swiglu_gradient():
        return torch.cat([torch.ops.aten.silu_backward(dout * up, gate), dout * torch.nn.functional.silu(gate)], 1)

    calls = caller(library, "tn_swiglu_forward", forward), caller(library, "tn_swiglu_backward", backward)
    for c in calls: c()
    same("SwiGLU", result, torch.nn.functional.silu(gate) * up)
    same("SwiGLU, gradient", gradient, swiglu_gradient())
    report("SwiGLU, width 4,864", 6 * t * f, calls[0], lambda: torch.nn.functional.silu(gate).mul_(up))
    report("SwiGLU, gradient", 10 * t * f, calls[1], swiglu_gradient)
    del gate_up, dout, result, gradient

    logits = torch.randn(rows, v, **bf16)
    kept, labels, loss = logits.clone(), torch.randint(0, v, (rows,), device="cuda"), torch.empty(rows, device="cuda")
    entropy = Entropy(C.sizeof(Entropy), 1, 2, 1, rows, v, logits.data_ptr(), v, labels.data_ptr(), loss.data_ptr(), 1.0, 0)

    def cross_entropy():
        logs = kept.log_softmax(1, torch.float32)
        picked = logs.gather(1, labels[:, None])
        gradient = logs.exp().to(torch.bfloat16)
        return -picked.sum(), gradient.scatter_(1, labels[:, None], (picked.exp() - 1).to(torch.bfloat16))

    call = caller(library, "tn_cross_entropy", entropy)
    call()
    expected = cross_entropy()
    same("cross-entropy, loss", loss.sum(), expected[0], 1e-5)
    same("cross-entropy, gradient", logits, expected[1])
    report("cross-entropy of 1,766 rows of 151,936, with gradient", 4 * logits.numel(), call, cross_entropy)
    del logits, kept

    norms(library, t, bf16)
    adamw(library, f, bf16)


def norms(library, t, bf16):
    """The norms of a block of Qwen3-1.7B: of its rows, with the residual, and of its query heads in the rows of q, k and v."""
    for name, heads, width, stride, residual in (("2,048 columns and residual", 1, 2048, 2048, True), ("16 heads of 128 in rows of 4,096", 16, 128, 4096, False)):
        x, other, dy, dsum = (torch.randn(t, stride, **bf16)[:, :heads * width] for _ in range(4))
        y, total, dx = (torch.empty(t, heads * width, **bf16) for _ in range(3))
        weight, dweight, rstd = torch.randn(width, **bf16), torch.empty(width, **bf16), torch.empty(t * heads, device="cuda")
        here = lambda a: Tensor(a.data_ptr(), a.stride(0), width)
        none = Tensor(None, 0, 0)
        bytes = I64()
        if library.tn_rms_norm_backward_scratch_bytes(1, I64(t), I64(heads), I64(width), C.byref(bytes)):
            raise RuntimeError(library.tn_last_error().decode())
        scratch = torch.empty(bytes.value, device="cuda", dtype=torch.uint8)
        forward = Norm(C.sizeof(Norm), 1, 2, 2, t, heads, width, 1e-6, 0, here(x), here(other) if residual else none,
                       here(total) if residual else none, here(y), weight.data_ptr(), rstd.data_ptr())
        backward = NormBackward(C.sizeof(NormBackward), 1, 2, 2, t, heads, width, here(total if residual else x), here(dy), here(dsum) if residual else none,
                                here(dx), weight.data_ptr(), dweight.data_ptr(), rstd.data_ptr(), scratch.data_ptr(), bytes.value)
        split = lambda a: a.unflatten(1, (heads, width))

        def their_forward():
            added = split(x + other if residual else x)
            return torch.ops.aten._fused_rms_norm(added, [width], weight, 1e-6)

        def their_backward():
            d, dw = torch.ops.aten._fused_rms_norm_backward(split(dy), added, [width], theirs, weight, [True, True])
            return (d.add_(split(dsum)) if residual else d), dw

        calls = caller(library, "tn_rms_norm_forward", forward), caller(library, "tn_rms_norm_backward", backward)
        for c in calls: c()
        added = split(x + other if residual else x)
        expected, theirs = their_forward()
        same("RMSNorm", split(y), expected)
        same("RMSNorm, gradient", split(dx), their_backward()[0])
        same("RMSNorm, gradient of the weight", dweight, their_backward()[1])
        rows = 2 * t * heads * width
        report("RMSNorm, " + name, rows * (4 if residual else 2), calls[0], their_forward)
        report("RMSNorm, gradient, " + name, rows * (4 if residual else 3), calls[1], their_backward)


def adamw(library, f, bf16):
    """A step on one weight with float32 master and moments, gradient and copy in bf16."""
    shape = 2 * f, 2048
    start, gradient, copy = torch.randn(shape, device="cuda"), torch.randn(shape, **bf16), torch.empty(shape, **bf16)
    ours, theirs = ([start.clone(), torch.zeros_like(start), torch.zeros_like(start)] for _ in range(2))
    args = Step(C.sizeof(Step), 1, 2, 0, start.numel(), *(x.data_ptr() for x in ours), gradient.data_ptr(), copy.data_ptr(), 1e-3, 0.9, 0.999, 1e-8, 0.1, 0.5, 1)
    step = torch.ones((), device="cuda")

    def their_step():
        torch._fused_adamw_([theirs[0]], [gradient.float().mul_(0.5)], [theirs[1]], [theirs[2]], [], [step], lr=1e-3, beta1=0.9, beta2=0.999,
                            weight_decay=0.1, eps=1e-8, amsgrad=False, maximize=False)
        copy.copy_(theirs[0])

    call = caller(library, "tn_adamw", args)
    call()
    their_step()
    same("AdamW", ours[0], theirs[0], 1e-6)
    report("AdamW, %d million weights" % (start.numel() / 1e6), start.numel() * 28, call, their_step)


if __name__ == "__main__":
    main()
