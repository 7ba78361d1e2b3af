// The optimizer on the CPU and, built for it, its step and its sums on the device.
#include "harness.h"

namespace {

struct Optimizer {
    Values parameter, m, v, copy;
    Optimizer(size_t count, std::mt19937_64& random)
        : parameter(Values::normal(TN_FLOAT32, count, random)), m(TN_FLOAT32, count), v(TN_FLOAT32, count), copy(TN_BFLOAT16, count) {
        for (size_t i = 0; i < count; ++i) m.set(i, 0), v.set(i, 0);
    }
    // Good as long as what was lent.
    tn_adamw_args args(Values& gradient, int64_t number, std::vector<Lent>& lent) {
        const auto place = [&](Values& values) {
            lent.push_back(lend(values));
            return lent.back().as<void>();
        };
        tn_adamw_args a{};
        a.struct_size = sizeof a;
        a.device = tested_device;
        a.gradient_dtype = gradient.dtype();
        a.count = static_cast<int64_t>(parameter.size());
        a.parameter = static_cast<float*>(place(parameter));
        a.first_moment = static_cast<float*>(place(m));
        a.second_moment = static_cast<float*>(place(v));
        a.gradient = place(gradient);
        a.bfloat16_copy = place(copy);
        a.learning_rate = 0.01;
        a.beta1 = 0.9;
        a.beta2 = 0.999;
        a.epsilon = 1e-8;
        a.weight_decay = 0.1;
        a.gradient_scale = 0.5;
        a.step = number;
        return a;
    }
    void step(Values& gradient, int64_t number) {
        std::vector<Lent> lent;
        const tn_adamw_args a = args(gradient, number, lent);
        ok(tn_adamw(&a, nullptr));
    }
};

}  // namespace

TEST("AdamW follows its formula in float64 over ten steps") {
    for (tn_dtype dtype : {TN_FLOAT32, TN_BFLOAT16}) for (size_t count : {20011, 20000}) {
        std::mt19937_64 random(6);
        Optimizer optimizer(count, random);
        std::vector<double> p(count), m(count, 0), v(count, 0);
        for (size_t i = 0; i < count; ++i) p[i] = optimizer.parameter[i];
        for (int64_t step = 1; step <= 10; ++step) {
            Values gradient = Values::normal(dtype, count, random);
            optimizer.step(gradient, step);
            for (size_t i = 0; i < count; ++i) {
                const double g = gradient[i] * 0.5;
                p[i] *= 1 - 0.01 * 0.1;
                m[i] += 0.1 * (g - m[i]);
                v[i] = 0.999 * v[i] + 0.001 * g * g;
                const double corrected = std::sqrt(v[i]) / std::sqrt(1 - std::pow(0.999, static_cast<double>(step))) + 1e-8;
                p[i] -= 0.01 / (1 - std::pow(0.9, static_cast<double>(step))) * m[i] / corrected;
            }
        }
        close(optimizer.parameter, p, "parameter", 32);
        close(optimizer.m, m, "first moment", 32);
        close(optimizer.v, v, "second moment", 32);
        Values rounded(TN_BFLOAT16, count);
        for (size_t i = 0; i < count; ++i) rounded.set(i, optimizer.parameter[i]);
        expect(rounded.bytes() == optimizer.copy.bytes(), "the copy is not the parameter rounded to bfloat16");
    }
}

TEST("AdamW of many tensors at once has the bits of one after another") {
    std::mt19937_64 random(10);
    std::vector<Optimizer> together, apart;
    std::vector<Values> gradients;
    for (size_t i = 0; i < 150; ++i) {
        // Empty, odd, by eights, one of many thread blocks; both types of gradient.
        const size_t count = i == 20 ? 0 : i == 90 ? 300000 : 1 + i * 37 % 5000;
        together.emplace_back(i % 4 == 0 ? count / 8 * 8 : count, random);
        gradients.push_back(Values::normal(i % 3 == 0 ? TN_FLOAT32 : TN_BFLOAT16, together.back().parameter.size(), random));
    }
    apart = together;
    {
        std::vector<Lent> lent;
        std::vector<tn_adamw_args> all;
        for (size_t i = 0; i < together.size(); ++i) all.push_back(together[i].args(gradients[i], 3, lent));
        ok(tn_adamw_each(all.data(), static_cast<int64_t>(all.size()), nullptr));
    }
    for (size_t i = 0; i < apart.size(); ++i) {
        apart[i].step(gradients[i], 3);
        expect(apart[i].parameter.bytes() == together[i].parameter.bytes() && apart[i].m.bytes() == together[i].m.bytes() &&
                   apart[i].v.bytes() == together[i].v.bytes() && apart[i].copy.bytes() == together[i].copy.bytes(),
               "tensor " + std::to_string(i));
    }
    ok(tn_adamw_each(nullptr, 0, nullptr));
    refused(tn_adamw_each(nullptr, 1, nullptr), TN_INVALID_ARGUMENT, "args");
    refused(tn_adamw_each(nullptr, -1, nullptr), TN_INVALID_ARGUMENT, "count");
}

TEST("the sum of squares is exact to float64 and adding up follows") {
    std::mt19937_64 random(8);
    for (tn_dtype dtype : {TN_FLOAT32, TN_BFLOAT16})
        for (size_t count : {0, 1, 7, 16384, 50001}) {
            Values x = Values::normal(dtype, count, random), sum = Values::normal(TN_FLOAT32, count, random);
            [[maybe_unused]] double expected = 0, result = -1;
            std::vector<double> added;
            for (size_t i = 0; i < count; ++i) expected += x[i] * x[i], added.push_back(x[i] + sum[i]);
#ifndef TN_TEST_CUDA
            ok(tn_sum_of_squares(TN_DEVICE_CPU, dtype, static_cast<int64_t>(count), x.data(), &result, nullptr));
            expect(std::fabs(result - expected) <= 1e-12 * expected, "sum of squares");
#endif
            {
                const Lent lent_x = lend(x), lent_sum = lend(sum);
                ok(tn_accumulate(tested_device, dtype, static_cast<int64_t>(count), lent_sum.as<float>(), lent_x.as<void>(), nullptr));
            }
            close(sum, added, "sum", 2);
        }
}

#ifndef TN_TEST_CUDA
TEST("the optimizer has the same bits for any number of threads") {
    same_bits_for_any_thread_count([] {
        std::mt19937_64 random(9);
        Optimizer optimizer(100003, random);
        Values gradient = Values::normal(TN_FLOAT32, 100003, random);
        optimizer.step(gradient, 1);
        double squares = 0;
        ok(tn_sum_of_squares(TN_DEVICE_CPU, TN_FLOAT32, 100003, gradient.data(), &squares, nullptr));
        return std::pair{optimizer.parameter.bytes(), squares};
    });
}
#endif
