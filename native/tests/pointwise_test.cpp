// Rotary and SwiGLU, on the CPU and, built for it, on the device.
#include "harness.h"

namespace {

void rotate(Values& x, Values& out, Values& cos, Values& sin, int64_t tokens, int64_t heads, int64_t dim, int32_t inverse) {
    const Lent lent_x = lend(x), lent_out = lend(out), lent_cos = lend(cos), lent_sin = lend(sin);
    tn_rotary_args a{};
    a.struct_size = sizeof a;
    a.device = tested_device;
    a.dtype = x.dtype();
    a.inverse = inverse;
    a.tokens = tokens;
    a.heads = heads;
    a.head_dim = dim;
    a.x_TNH = {lent_x.as<void>(), heads * dim, dim};
    a.out_TNH = {lent_out.as<void>(), heads * dim, dim};
    a.cos_TH2 = lent_cos.as<float>();
    a.sin_TH2 = lent_sin.as<float>();
    ok(tn_rotary(&a, nullptr));
}

void swiglu(Values& gate_up, Values& out, Values& dout, Values& dgate_up, int64_t tokens, int64_t width) {
    const Lent lent_gate_up = lend(gate_up), lent_out = lend(out), lent_dout = lend(dout), lent_dgate_up = lend(dgate_up);
    tn_swiglu_forward_args f{};
    f.struct_size = sizeof f;
    f.device = tested_device;
    f.dtype = gate_up.dtype();
    f.tokens = tokens;
    f.width = width;
    f.gate_up_T2F = lent_gate_up.as<void>();
    f.gate_up_stride = 2 * width;
    f.out_TF = lent_out.as<void>();
    f.out_stride = width;
    ok(tn_swiglu_forward(&f, nullptr));
    tn_swiglu_backward_args b{};
    b.struct_size = sizeof b;
    b.device = tested_device;
    b.dtype = gate_up.dtype();
    b.tokens = tokens;
    b.width = width;
    b.gate_up_T2F = lent_gate_up.as<void>();
    b.gate_up_stride = 2 * width;
    b.dout_TF = lent_dout.as<void>();
    b.dout_stride = width;
    b.dgate_up_T2F = lent_dgate_up.as<void>();
    b.dgate_up_stride = 2 * width;
    ok(tn_swiglu_backward(&b, nullptr));
}

}  // namespace

TEST("rotary turns pairs half a head apart, and its inverse turns them back") {
    std::mt19937_64 random(3);
    for (tn_dtype dtype : {TN_FLOAT32, TN_BFLOAT16})
        for (int64_t dim : {2, 6, 16, 64, 128}) {
            const int64_t tokens = 5, heads = 3, half = dim / 2;
            const size_t count = static_cast<size_t>(tokens * heads * dim);
            Values x = Values::normal(dtype, count, random), out(dtype, count), back(dtype, count);
            Values cos(TN_FLOAT32, static_cast<size_t>(tokens * half)), sin(cos);
            std::vector<double> expected(count), original(count);
            for (size_t i = 0; i < cos.size(); ++i) cos.set(i, std::cos(0.3 * static_cast<double>(i))), sin.set(i, std::sin(0.3 * static_cast<double>(i)));
            for (size_t row = 0; row < static_cast<size_t>(tokens * heads); ++row)
                for (size_t i = 0; i < static_cast<size_t>(half); ++i) {
                    const size_t low = row * static_cast<size_t>(dim) + i, high = low + static_cast<size_t>(half);
                    const double c = cos[row / 3 * static_cast<size_t>(half) + i], s = sin[row / 3 * static_cast<size_t>(half) + i];
                    expected[low] = x[low] * c - x[high] * s;
                    expected[high] = x[high] * c + x[low] * s;
                }
            rotate(x, out, cos, sin, tokens, heads, dim, 0);
            close(out, expected, "out", 4);
            for (size_t i = 0; i < count; ++i) original[i] = x[i];
            rotate(out, back, cos, sin, tokens, heads, dim, 1);
            close(back, original, "inverse", dtype == TN_FLOAT32 ? 8 : 131072);  // two roundings to bfloat16: 2^-7 of the largest
            rotate(x, x, cos, sin, tokens, heads, dim, 0);
            expect(x.bytes() == out.bytes(), "in place differs");
        }
}

TEST("SwiGLU and its gradient agree with float64, large gates included") {
    std::mt19937_64 random(4);
    for (tn_dtype dtype : {TN_FLOAT32, TN_BFLOAT16})
        for (int64_t width : {1, 7, 8, 100, 264})
            for (double deviation : {1.0, 60.0}) {
                const int64_t tokens = 4;
                const size_t count = static_cast<size_t>(tokens * width);
                Values gate_up = Values::normal(dtype, 2 * count, random, deviation), dout = Values::normal(dtype, count, random);
                Values out(dtype, count), dgate_up(dtype, 2 * count);
                swiglu(gate_up, out, dout, dgate_up, tokens, width);
                std::vector<double> r_out(count), r_d(2 * count);
                for (size_t t = 0; t < static_cast<size_t>(tokens); ++t)
                    for (size_t i = 0; i < static_cast<size_t>(width); ++i) {
                        const size_t at = t * static_cast<size_t>(width) + i, gate = 2 * t * static_cast<size_t>(width) + i, up = gate + static_cast<size_t>(width);
                        const double g = gate_up[gate], u = gate_up[up], s = 1 / (1 + std::exp(-g));
                        r_out[at] = g * s * u;
                        r_d[gate] = dout[at] * u * s * (1 + g * (1 - s));
                        r_d[up] = dout[at] * g * s;
                    }
                close(out, r_out, "out", 16);
                close(dgate_up, r_d, "dgate_up", 16);
                swiglu(gate_up, out, dout, gate_up, tokens, width);
                expect(gate_up.bytes() == dgate_up.bytes(), "in place differs");
            }
}

TEST("pointwise operations have the same bits for any number of threads") {
    std::mt19937_64 random(5);
    Values gate_up = Values::normal(TN_FLOAT32, 2 * 37 * 51, random), dout = Values::normal(TN_FLOAT32, 37 * 51, random);
    same_bits_for_any_thread_count([&] {
        Values out(TN_FLOAT32, 37 * 51), d(TN_FLOAT32, 2 * 37 * 51);
        swiglu(gate_up, out, dout, d, 37, 51);
        std::vector<uint8_t> bits = out.bytes();
        bits.insert(bits.end(), d.bytes().begin(), d.bytes().end());
        return bits;
    });
}
