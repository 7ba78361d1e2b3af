"""Rotary, SwiGLU and cross-entropy of the CUDA engine beside the same by PyTorch's operators: microseconds, and bytes that must
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


if __name__ == "__main__":
    main()
