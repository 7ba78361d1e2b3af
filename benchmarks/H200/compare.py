"""Two or more builds of our attention kernels beside each other, in one process on the same inputs.

    python3 benchmarks/H200/compare.py before/libtrainer_kernels.so after/libtrainer_kernels.so

The builds come in turn and back (before, after, after, before): what runs before it decides how hot a build finds the chip.
Medians of the whole call, microseconds, then each build's share of the first one's time. Needs what attention.py needs.
"""
import ctypes as C, itertools, os, random, statistics, sys
import attention as A

SMALL = [(40, 14, 2, 200, 64), (40, 28, 4, 200, 128), (16, 28, 4, 512, 128), (8, 28, 4, 1024, 128), (1, 28, 4, 1024, 128), (1, 14, 2, 1024, 64), (1, 14, 2, 4096, 64), (1, 28, 4, 4096, 128), (1, 16, 16, 2048, 128), (4, 16, 16, 1024, 128)]


def build(path):
    library = C.CDLL(os.path.abspath(path))
    library.tn_last_error.restype = C.c_char_p
    return library


def compare(builds, name, n, m, d, lengths):
    t = sum(lengths)
    a = A.Attention(A.packed(t, n, d), A.packed(t, m, d), A.packed(t, m, d), A.packed(t, n, d), lengths, lengths, True)
    passes = {"forward": lambda: a.forward(""), **{mode: lambda mode=mode: a.backward(mode) for mode in A.modes[:2]}}
    told = []
    for label, run in passes.items():
        times = [[] for _ in builds]
        for round in range(4):
            for i in range(len(builds))[::1 if round in (0, 3) else -1]:
                A.library = builds[i]
                a.forward("")
                times[i].append(1000 * A.milliseconds(run))
        medians = [statistics.median(x) for x in times]
        told.append("%s %s (%s)" % (label, " ".join("%.1f" % x for x in medians), " ".join("%.3f" % (x / medians[0]) for x in medians[1:])))
    print(name, (n, m, d), t, "tokens:", " | ".join(told), flush=True)


if __name__ == "__main__":
    builds = [build(path) for path in sys.argv[1:]]
    for b, n, m, s, d in A.SHAPES + SMALL:
        compare(builds, "%d x %d" % (b, s), n, m, d, [s] * b)
    for (n, m, d, longest, count), seed in itertools.product(((28, 4, 128, 4096, 8), (14, 2, 64, 2048, 16)), (1, 2, 3)):
        random.seed(seed)
        compare(builds, "draw %d of %d lengths" % (seed, count), n, m, d, [random.randint(1, longest) for _ in range(count)])
