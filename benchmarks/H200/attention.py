"""Attention kernels on one GPU: speed beside PyTorch's backends, and error against float64, in one process on the same inputs.

    python3 benchmarks/H200/attention.py native/build/cuda/libtrainer_kernels.so speed full small varlen long check

Needs PyTorch with Triton. TFLOP/s count 4*B*H*S*S*D forward, halved for causal, and 2.5 times that backward.
"""
import ctypes as C, itertools, math, os, random, statistics, subprocess, sys
import torch, torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from triton.testing import do_bench


class Tensor(C.Structure):
    _fields_ = [("data", C.c_void_p), ("token_stride", C.c_int64), ("head_stride", C.c_int64)]

    @staticmethod
    def of(x_TNH):
        return Tensor(x_TNH.data_ptr(), x_TNH.stride(0), x_TNH.stride(1))


class Shape(C.Structure):
    _fields_ = [("device", C.c_int32), ("dtype", C.c_int32), ("q_tokens", C.c_int64), ("k_tokens", C.c_int64), ("q_heads", C.c_int32),
                ("kv_heads", C.c_int32), ("head_dim", C.c_int32), ("sequences", C.c_int32), ("cu_seqlens_q", C.c_void_p),
                ("cu_seqlens_k", C.c_void_p), ("scale", C.c_float), ("causal", C.c_int32), ("window", C.c_int32), ("reserved", C.c_int32)]


class Forward(C.Structure):
    _fields_ = [("struct_size", C.c_uint32), ("shape", Shape)] + [(n, Tensor) for n in ("q", "k", "v", "out")] + [("lse", C.c_void_p)]


class Backward(C.Structure):
    _fields_ = ([("struct_size", C.c_uint32), ("deterministic", C.c_int32), ("shape", Shape)] + [(n, Tensor) for n in ("q", "k", "v", "out")] +
                [("lse", C.c_void_p)] + [(n, Tensor) for n in ("dout", "dq", "dk", "dv")] + [("scratch", C.c_void_p), ("scratch_bytes", C.c_int64)])


library = None
modes = ("any order", "deterministic", "portable any order", "portable deterministic")


def call(status):
    if status:
        raise RuntimeError(library.tn_last_error().decode())


class Attention:
    """Our kernels on packed q_TNH, k_TMH, v_TMH and dout_TNH."""

    def __init__(self, q, k, v, dout, lengths_q, lengths_k, causal, window=-1):
        boundaries = [[0] + [sum(l[:i + 1]) for i in range(len(l))] for l in (lengths_q, lengths_k)]
        self.cu = [(C.c_int32 * len(b))(*b) for b in boundaries]
        self.inputs = q, k, v, dout
        self.out, self.dq, self.dk, self.dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, q, k, v))
        self.lse = torch.empty(q.shape[1], q.shape[0], device=q.device)
        self.shape = Shape(1, 2 if q.dtype == torch.bfloat16 else 3, q.shape[0], k.shape[0], q.shape[1], k.shape[1], q.shape[2],
                           len(lengths_q), C.cast(self.cu[0], C.c_void_p), C.cast(self.cu[1], C.c_void_p), 1 / math.sqrt(q.shape[2]),
                           causal, window, 0)
        self.forward_args = Forward(C.sizeof(Forward), self.shape, *map(Tensor.of, (q, k, v, self.out)), self.lse.data_ptr())
        self.backward_args = {}

    def poison(self):
        for x in (self.out, self.dq, self.dk, self.dv, self.lse) + tuple(s for _, s in self.backward_args.values()):
            x.view(torch.uint8).fill_(255)

    def forward(self, mode):
        os.environ["TRAINER_KERNELS_ISA"] = "portable" if mode.startswith("portable") else ""
        call(library.tn_attention_forward(C.byref(self.forward_args), C.c_void_p(torch.cuda.current_stream().cuda_stream)))

    def backward(self, mode):
        os.environ["TRAINER_KERNELS_ISA"] = "portable" if mode.startswith("portable") else ""
        deterministic = mode.endswith("deterministic")
        if deterministic not in self.backward_args:
            q, k, v, dout = self.inputs
            size = C.c_int64()
            call(library.tn_attention_backward_scratch_bytes(C.byref(self.shape), deterministic, C.byref(size)))
            scratch = torch.full((max(size.value, 16),), 255, dtype=torch.uint8, device=q.device)
            self.backward_args[deterministic] = Backward(
                C.sizeof(Backward), deterministic, self.shape, *map(Tensor.of, (q, k, v, self.out)), self.lse.data_ptr(),
                *map(Tensor.of, (dout, self.dq, self.dk, self.dv)), scratch.data_ptr(), size.value), scratch
        call(library.tn_attention_backward(C.byref(self.backward_args[deterministic][0]), C.c_void_p(torch.cuda.current_stream().cuda_stream)))


def packed(tokens, heads, dim, dtype=torch.bfloat16, deviation=1.0, gap=0):
    x = torch.randn(tokens, heads * dim + gap, device="cuda").mul_(deviation).to(dtype)
    return x.as_strided((tokens, heads, dim), (heads * dim + gap, dim, 1))


def milliseconds(f):
    return do_bench(f, warmup=8, rep=20, return_mode="median")


SHAPES = [(8, 14, 2, 2048, 64), (1, 14, 2, 16384, 64), (4, 16, 16, 4096, 64), (8, 16, 8, 2048, 128), (4, 28, 4, 4096, 128),
          (1, 28, 4, 16384, 128), (4, 16, 16, 4096, 128), (1, 16, 16, 16384, 128)]


def speed(shapes=SHAPES, causal=True):
    """Medians over rounds in which every contender comes once, in every place once, and after every other once: what runs before
    it decides how hot a contender finds the chip."""
    for b, n, m, s, d in shapes:
        flops = 4 * b * n * s * s * d * (0.5 if causal else 1)
        q, k, v, dout = (torch.randn(b, h, s, d, device="cuda", dtype=torch.bfloat16) for h in (n, m, m, n))
        pack = lambda x: x.transpose(1, 2).reshape(b * s, x.shape[1], d).contiguous()
        ours = Attention(*map(pack, (q, k, v, dout)), [s] * b, [s] * b, causal)
        contenders = {}
        for name, backend in (("flash", SDPBackend.FLASH_ATTENTION), ("cuDNN", SDPBackend.CUDNN_ATTENTION)):
            inputs = [x.clone().requires_grad_() for x in (q, k, v)]

            def run(inputs=inputs, backend=backend):
                with sdpa_kernel(backend):
                    return F.scaled_dot_product_attention(*inputs, is_causal=causal, enable_gqa=n != m)

            out = run()
            contenders[name] = run, lambda out=out, inputs=inputs: torch.autograd.grad(out, inputs, dout, retain_graph=True)
        for mode in modes:
            contenders[mode] = lambda mode=mode: ours.forward(mode), lambda mode=mode: ours.backward(mode)
        times = {name: ([], []) for name in contenders}
        names, count = list(contenders), len(contenders)  # an even number
        for start in range(count):
            for place in range(count):
                name = names[(start + (place + 1) // 2 * (-1) ** (place + 1)) % count]
                for f, seen in zip(contenders[name], times[name]):
                    seen.append(milliseconds(f))
        rate = {name: [x * flops / statistics.median(seen) / 1e9 for x, seen in zip((1, 2.5), t)] for name, t in times.items()}
        print((b, n, m, s, d), "causal" if causal else "full", " | ".join("%s %.0f / %.0f" % (x, *r) for x, r in rate.items()), flush=True)
        del contenders, ours


def full():
    speed([(4, 16, 16, 4096, 128), (4, 16, 16, 4096, 64)], causal=False)


def small():
    """Batches too small for one thread block a block of keys to occupy the chip."""
    speed([(1, 14, 2, 1024, 64), (1, 14, 2, 4096, 64), (1, 28, 4, 1024, 128), (1, 28, 4, 4096, 128)])


def varlen():
    for (n, m, d, longest, count), seed in itertools.product(((28, 4, 128, 4096, 8), (14, 2, 64, 2048, 16)), (1, 2, 3)):
        random.seed(seed)
        drawn = [random.randint(1, longest) for _ in range(count)]
        cases = {}
        for name, lengths in (("dense", [longest] * round(sum(drawn) / longest)), ("drawn", drawn)):
            t = sum(lengths)
            a = Attention(packed(t, n, d), packed(t, m, d), packed(t, m, d), packed(t, n, d), lengths, lengths, True)
            flops = sum(2 * n * x * x * d for x in lengths)
            cases[name] = [(flops, lambda a=a: a.forward(""))] + [(2.5 * flops, lambda a=a, mode=mode: a.backward(mode)) for mode in modes[:2]]
        times = {name: [[] for _ in passes] for name, passes in cases.items()}
        for pair in range(3):  # forward pass beside forward pass, backward beside backward, each first in turn
            for i in range(3):
                for name in list(cases)[::(-1) ** pair]:
                    times[name][i].append(milliseconds(cases[name][i][1]))
        rates = {name: [work / statistics.median(seen) / 1e9 for (work, _), seen in zip(cases[name], times[name])] for name in cases}
        print("varlen", (n, m, d), count, "lengths in 1 ..", longest, "seed", seed, ":", sum(drawn), "tokens, longest", max(drawn), ";  forward, any order, deterministic:",
              ", ".join("%.0f of %.0f (%.2f)" % (x, y, x / y) for x, y in zip(rates["drawn"], rates["dense"])), flush=True)


def long():
    t, n, m, d = 65536, 28, 4, 128
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    for mode in modes[:2]:
        a = Attention(packed(t, n, d), packed(t, m, d), packed(t, m, d), packed(t, n, d), [t], [t], True)
        a.forward(mode)
        a.backward(mode)
        finite = all(x.isfinite().all().item() for x in (a.out, a.dq, a.dk, a.dv))
        peak, scratch = torch.cuda.max_memory_allocated() / 2**30, next(iter(a.backward_args.values()))[1].numel() / 2**30
        print("T = 65536", mode, "finite" if finite else "NOT FINITE", "peak %.2f GiB, of which scratch %.3f" % (peak, scratch),
              "forward %.0f, backward %.0f" % (2e-9 * n * t * t * d / milliseconds(lambda: a.forward(mode)),
                                               5e-9 * n * t * t * d / milliseconds(lambda: a.backward(mode))), flush=True)
        del a
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def by_products(q, k, v, dout, lengths_q, lengths_k, causal, window, dtype):
    """out, dq, dk, dv and lse of attention by matrix products in dtype."""
    q, k, v = (x.detach().to(dtype).requires_grad_() for x in (q, k, v))
    outs, lses = [], []
    for Q, K, V in zip(q.split(lengths_q), k.split(lengths_k), v.split(lengths_k)):
        group = Q.shape[1] // K.shape[1]
        Q, K, V = Q.transpose(0, 1), K.transpose(0, 1).repeat_interleave(group, 0), V.transpose(0, 1).repeat_interleave(group, 0)
        i = torch.arange(Q.shape[1], device="cuda")[:, None] + K.shape[1] - Q.shape[1]
        j = torch.arange(K.shape[1], device="cuda")[None]
        hidden = torch.zeros(Q.shape[1], K.shape[1], dtype=torch.bool, device="cuda")
        if causal: hidden |= j > i
        if window >= 0: hidden |= j < i - window
        scores = ((Q @ K.transpose(1, 2)) / math.sqrt(Q.shape[2])).masked_fill(hidden, -math.inf)
        lse = torch.logsumexp(scores if dtype == torch.float64 else scores.float(), -1)
        p = torch.exp(scores.to(lse.dtype) - lse.where(lse.isfinite(), torch.zeros_like(lse))[..., None]).to(dtype) if K.shape[1] else scores
        outs.append((p @ V).transpose(0, 1))
        lses.append(lse)
    out = torch.cat(outs)
    gradients = torch.autograd.grad(out, (q, k, v), dout.to(dtype), allow_unused=True)
    return [out.detach()] + [torch.zeros_like(x) if g is None else g for g, x in zip(gradients, (q, k, v))], torch.cat(lses, 1).detach()


def check():
    """Every mode within twice the error of attention by matrix products in the same type, and what float32 sums of products of
    the inputs' magnitude differ by: rows that see one key have ds = 0 exactly, where ours are two such sums."""
    worst, failures, cases = {}, 0, []
    for d in (8, 40, 64, 80, 96, 128):
        for causal in (True, False):
            cases += [("d", 4, 2, d, [257], [257], causal, {}), ("mqa", 6, 1, d, [200, 57], [200, 57], causal, {})]
    pairs = [(1, 1), (1, 239), (3, 799), (239, 1), (799, 3), (64, 128), (113, 203), (128, 217), (113, 211), (108, 256), (256, 512), (512, 256),
             (127, 512), (127, 513), (384, 256), (640, 128), (1024, 1024), (1023, 1024), (1024, 1023), (2048, 2048), (4096, 4096), (4224, 4224)]
    for d in (64, 128):
        for lq, lk in pairs:
            for causal in (True, False): cases.append((f"{lq} x {lk}", 2, 1, d, [lq], [lk], causal, {}))
        ragged = [0, 1, 150, 0, 64, 3, 129, 300, 0]
        many = [i * 37 % 91 for i in range(300)]
        cases += [("ragged", 6, 2, d, ragged, ragged, True, {}), ("unequal", 2, 2, d, [5, 0, 80, 130, 70, 0], [9, 4, 70, 3, 0, 70], True, {}),
                  ("unequal", 6, 2, d, [5, 0, 80, 200], [9, 4, 70, 333], False, {}), ("many", 2, 1, d, many, many, True, {}),
                  ("strided", 4, 2, d, [257, 30], [257, 30], True, dict(gap=24))]
        sevens = [700, 20, 333, 64, 513, 1, 640, 90, 450, 128, 700, 257]  # enough pairs of tile and head to be given out by work
        cases += [("sevens", 14, 2, d, sevens, sevens, True, {}), ("sevens", 14, 2, d, sevens, sevens, False, dict(window=100))]
        cases += [("tiles without keys", 14, 2, d, [700] * 12, [700, 0, 70, 300] * 3, causal, {}) for causal in (True, False)]
        for window in (0, 5, 64, 200):
            for causal in (True, False): cases.append((f"window {window}", 2, 1, d, [350, 20], [350, 40], causal, dict(window=window)))
        for length in (1, 2, 3, 4, 5, 8, 16, 17, 40, 128):
            for deviation in (2.0, 4.0, 5.0): cases.append((f"{length} keys, deviation {deviation}", 2, 1, d, [length], [length], True, dict(deviation=deviation)))
    for number, (name, n, m, d, lq, lk, causal, more) in enumerate(cases):
        for dtype in (torch.bfloat16, torch.float16):
            torch.manual_seed(number)
            deviation, gap, window = more.get("deviation", 1.0), more.get("gap", 0), more.get("window", -1)
            q, k, v = (packed(sum(l), h, d, dtype, deviation, gap) for l, h in ((lq, n), (lk, m), (lk, m)))
            dout = packed(sum(lq), n, d, dtype, 1.0, gap)
            exact, lse = by_products(q, k, v, dout, lq, lk, causal, window, torch.float64)
            plain, _ = by_products(q, k, v, dout, lq, lk, causal, window, dtype)
            a = Attention(q, k, v, dout, lq, lk, causal, window)
            for mode in modes:
                a.backward_args and a.poison()
                a.forward(mode)
                a.backward(mode)
                off = torch.where(lse.isinf(), (a.lse != lse).double(), (a.lse - lse).abs()).max().item() if lse.numel() else 0
                bad = [] if off <= 1e-3 else ["lse %g" % off]
                for what, x, y, z in zip(("out", "dq", "dk", "dv"), (a.out, a.dq, a.dk, a.dv), exact, plain):
                    if not y.numel(): continue
                    error, allowed = (x.double() - y).abs().max().item(), 2 * (z.double() - y).abs().max().item() + 4e-5 * deviation**2
                    if not error <= allowed: bad.append("%s off by %.3g, allowed %.3g" % (what, error, allowed))
                    worst[what] = max(worst.get(what, 0), error / allowed)
                if bad:
                    failures += 1
                    print("FAIL", name, (n, m, d), "causal" if causal else "full", dtype, mode, "; ".join(bad), flush=True)
    print(len(cases) * 2 * len(modes), "checks,", failures, "failures; largest share of the allowed error:",
          ", ".join("%s %.2f" % x for x in worst.items()), flush=True)


if __name__ == "__main__":
    library = C.CDLL(os.path.abspath(sys.argv[1]))
    library.tn_last_error.restype = C.c_char_p
    print(torch.cuda.get_device_name(), "PyTorch", torch.__version__, subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version,clocks.sm,temperature.gpu", "--format=csv,noheader"], capture_output=True, text=True).stdout.strip())
    for name in sys.argv[2:]:
        {f.__name__: f for f in (speed, full, small, varlen, long, check)}[name]()
