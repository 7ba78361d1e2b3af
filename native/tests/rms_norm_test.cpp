// RMSNorm on the CPU and, built for it, on the device, whose widths are multiples of 8.
#include "harness.h"

namespace {

struct Case {
    tn_dtype dtype, weight_dtype;
    int64_t tokens, heads, width;
    bool residual = false;
    int64_t token_gap = 0;
};

class RmsNorm {
public:
    explicit RmsNorm(const Case& c)
        : c_(c), stride_(c.heads * c.width + c.token_gap), count_(static_cast<size_t>(c.tokens * stride_)),
          x(Values::normal(c.dtype, count_, random_)), residual(Values::normal(c.dtype, count_, random_)),
          dy(Values::normal(c.dtype, count_, random_)), dsum(Values::normal(c.dtype, count_, random_)),
          weight(Values::normal(c.weight_dtype, static_cast<size_t>(c.width), random_)), sum(c.dtype, count_), y(c.dtype, count_),
          dx(c.dtype, count_), dweight(c.weight_dtype, static_cast<size_t>(c.width)),
          rstd(TN_FLOAT32, static_cast<size_t>(c.tokens * c.heads)) {}

    void run() {
        [[maybe_unused]] const Lent held[] = {lend(x), lend(residual), lend(dy), lend(dsum), lend(weight), lend(sum), lend(y), lend(dx), lend(dweight), lend(rstd)};
        tn_rms_norm_forward_args f{};
        f.struct_size = sizeof f;
        f.device = tested_device;
        f.dtype = c_.dtype;
        f.weight_dtype = c_.weight_dtype;
        f.tokens = c_.tokens;
        f.heads = c_.heads;
        f.width = c_.width;
        f.epsilon = 1e-6f;
        f.x_TND = tensor(x);
        if (c_.residual) f.residual_TND = tensor(residual), f.sum_TND = tensor(sum);
        f.y_TND = tensor(y);
        f.weight_D = lend(weight).as<void>();
        f.rstd_TN = lend(rstd).as<float>();
        ok(tn_rms_norm_forward(&f, nullptr));
        tn_rms_norm_backward_args b{};
        b.struct_size = sizeof b;
        b.device = tested_device;
        b.dtype = c_.dtype;
        b.weight_dtype = c_.weight_dtype;
        b.tokens = c_.tokens;
        b.heads = c_.heads;
        b.width = c_.width;
        b.sum_TND = tensor(c_.residual ? sum : x);
        b.dy_TND = tensor(dy);
        if (c_.residual) b.dsum_TND = tensor(dsum);
        b.dx_TND = tensor(dx);
        b.weight_D = lend(weight).as<void>();
        b.dweight_D = lend(dweight).as<void>();
        b.rstd_TN = lend(rstd).as<float>();
        ok(tn_rms_norm_backward_scratch_bytes(tested_device, c_.tokens, c_.heads, c_.width, &b.scratch_bytes));
        Values scratch(TN_FLOAT32, static_cast<size_t>(b.scratch_bytes) / 4);
        const Lent lent_scratch = lend(scratch);
        if (b.scratch_bytes > 0) b.scratch = lent_scratch.as<void>();
        ok(tn_rms_norm_backward(&b, nullptr));
    }

    void check() {
        run();
        Values summed = x;
        std::vector<double> r_y, r_dx, got_dx, r_dweight(static_cast<size_t>(c_.width), 0);
        Values y_used(c_.dtype, static_cast<size_t>(c_.tokens * c_.heads * c_.width)), dx_used(y_used);
        for (int64_t t = 0; t < c_.tokens; ++t)
            for (int64_t n = 0; n < c_.heads; ++n) {
                const size_t row = static_cast<size_t>(t * stride_ + n * c_.width);
                double squares = 0, mean = 0;
                for (size_t i = row; i < row + static_cast<size_t>(c_.width); ++i) {
                    if (c_.residual) summed.set(i, x[i] + residual[i]);
                    expect(!c_.residual || summed[i] == sum[i], "sum is not x + residual rounded once");
                    squares += summed[i] * summed[i];
                }
                const double r = 1 / std::sqrt(squares / static_cast<double>(c_.width) + static_cast<double>(1e-6f));
                for (size_t i = 0; i < weight.size(); ++i) mean += dy[row + i] * weight[i] * summed[row + i] * r;
                mean /= static_cast<double>(c_.width);
                for (size_t i = 0; i < weight.size(); ++i) {
                    const double normed = summed[row + i] * r;
                    y_used.set(r_y.size(), y[row + i]);
                    dx_used.set(r_y.size(), dx[row + i]);
                    r_y.push_back(normed * weight[i]);
                    r_dx.push_back(r * (dy[row + i] * weight[i] - normed * mean) + (c_.residual ? dsum[row + i] : 0));
                    r_dweight[i] += dy[row + i] * normed;
                }
            }
        close(y_used, r_y, "y", 16);
        close(dx_used, r_dx, "dx", 32);
        close(dweight, r_dweight, "dweight", 64);
    }

    std::vector<uint8_t> all_bits() {
        run();
        std::vector<uint8_t> bits = y.bytes();
        for (const Values* t : {&dx, &dweight, &rstd}) bits.insert(bits.end(), t->bytes().begin(), t->bytes().end());
        return bits;
    }

private:
    Case c_;
    int64_t stride_;
    size_t count_;
    std::mt19937_64 random_{7};
    tn_tensor tensor(Values& t) { return {lend(t).as<void>(), stride_, c_.width}; }

public:
    Values x, residual, dy, dsum, weight, sum, y, dx, dweight, rstd;
};

#ifdef TN_TEST_CUDA
constexpr int64_t widths[] = {8, 16, 64, 104, 128, 136, 256, 896, 2048, 3584, 8192}, unit = 8;
#else
constexpr int64_t widths[] = {1, 7, 8, 64, 100, 128, 896}, unit = 1;
#endif

}  // namespace

TEST("RMSNorm agrees with float64 for every type, width and number of heads") {
    for (tn_dtype dtype : {TN_FLOAT32, TN_BFLOAT16})
        for (tn_dtype weight_dtype : {TN_FLOAT32, TN_BFLOAT16})
            for (int64_t width : widths)
                for (int64_t heads : {1, 3}) RmsNorm({dtype, weight_dtype, 5, heads, width}).check();
}

TEST("RMSNorm with a residual adds it first and passes both gradients on") {
    for (tn_dtype dtype : {TN_FLOAT32, TN_BFLOAT16})
        for (int64_t width : {9 * unit, int64_t{256}}) RmsNorm({dtype, TN_FLOAT32, 6, 1, width, true}).check();
}

TEST("RMSNorm of a slice follows its strides") { RmsNorm({TN_FLOAT32, TN_FLOAT32, 6, 4, 16, false, 33 * unit}).check(); }

TEST("RMSNorm sums the weight's gradient over many rows exactly enough") {
    RmsNorm({TN_FLOAT32, TN_FLOAT32, 3000, 4, 24}).check();
}

TEST("RMSNorm of no tokens gives a zero weight gradient") { RmsNorm({TN_FLOAT32, TN_FLOAT32, 0, 1, 8}).check(); }

#ifdef TN_TEST_CUDA
TEST("RMSNorm on the device leaves the same bits in every run") {
    RmsNorm r({TN_BFLOAT16, TN_BFLOAT16, 5000, 2, 128, true});
    const std::vector<uint8_t> first = r.all_bits();
    for (int run = 0; run < 20; ++run) expect(r.all_bits() == first, "bits differ");
}

TEST("RMSNorm on the device refuses widths, strides and scratch that it has no use for") {
    int64_t bytes = 0;
    refused(tn_rms_norm_backward_scratch_bytes(TN_DEVICE_CUDA, 4, 1, 12, &bytes), TN_UNSUPPORTED, "width");
    refused(tn_rms_norm_backward_scratch_bytes(TN_DEVICE_CUDA, 4, 1, 8200, &bytes), TN_UNSUPPORTED, "width");
    Values host(TN_FLOAT32, 64), device(TN_FLOAT32, 256);
    const Lent lent = lend(device);
    tn_rms_norm_forward_args f{};
    f.struct_size = sizeof f;
    f.device = TN_DEVICE_CUDA;
    f.dtype = f.weight_dtype = TN_FLOAT32;
    f.tokens = 2;
    f.heads = 1;
    f.width = 8;
    f.x_TND = f.y_TND = {lent.as<void>(), 8, 8};
    f.weight_D = lent.as<void>();
    f.rstd_TN = lent.as<float>();
    ok(tn_rms_norm_forward(&f, nullptr));
    f.x_TND.token_stride = 12;
    refused(tn_rms_norm_forward(&f, nullptr), TN_INVALID_ARGUMENT, "x_TND");
    f.x_TND = {lent.as<float>() + 1, 8, 8};
    refused(tn_rms_norm_forward(&f, nullptr), TN_INVALID_ARGUMENT, "x_TND");
    f.x_TND = {host.data(), 8, 8};
    refused(tn_rms_norm_forward(&f, nullptr), TN_INVALID_ARGUMENT, "x_TND");
    tn_rms_norm_backward_args b{};
    b.struct_size = sizeof b;
    b.device = TN_DEVICE_CUDA;
    b.dtype = b.weight_dtype = TN_FLOAT32;
    b.tokens = 2;
    b.heads = 1;
    b.width = 8;
    b.sum_TND = b.dy_TND = b.dx_TND = {lent.as<void>(), 8, 8};
    b.weight_D = b.dweight_D = lent.as<void>();
    b.rstd_TN = lent.as<float>();
    refused(tn_rms_norm_backward(&b, nullptr), TN_INVALID_ARGUMENT, "scratch");
    b.scratch = lent.as<void>();
    refused(tn_rms_norm_backward(&b, nullptr), TN_INVALID_ARGUMENT, "scratch_bytes");
}
#else
TEST("RMSNorm has the same bits for any number of threads") {
    RmsNorm r({TN_BFLOAT16, TN_FLOAT32, 301, 2, 100, true});
    same_bits_for_any_thread_count([&] { return r.all_bits(); });
}
#endif
