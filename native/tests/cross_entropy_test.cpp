#include "harness.h"

#include <algorithm>

namespace {

void run(Values& logits, int64_t rows, int64_t vocabulary, int64_t stride, std::vector<int64_t> labels, Values& loss, float scale,
         bool gradient) {
    const Lent lent_logits = lend(logits), lent_loss = lend(loss), lent_labels(labels.data(), labels.size() * sizeof labels[0]);
    tn_cross_entropy_args a{};
    a.struct_size = sizeof a;
    a.device = tested_device;
    a.dtype = logits.dtype();
    a.write_gradient = gradient;
    a.rows = rows;
    a.vocabulary = vocabulary;
    a.logits_CV = lent_logits.as<void>();
    a.logits_stride = stride;
    a.labels_C = lent_labels.as<int64_t>();
    a.loss_C = lent_loss.as<float>();
    a.gradient_scale = scale;
    ok(tn_cross_entropy(&a, nullptr));
}

void check(tn_dtype dtype, int64_t rows, int64_t vocabulary, double deviation, int64_t gap = 0) {
    std::mt19937_64 random(11);
    const int64_t stride = vocabulary + gap;
    const size_t count = static_cast<size_t>(rows * stride);
    Values logits = Values::normal(dtype, count, random, deviation);
    const Values before = logits;
    std::vector<int64_t> labels;
    for (int64_t r = 0; r < rows; ++r) labels.push_back(r % 3 == 2 ? TN_IGNORE_INDEX : r % 3 == 0 ? vocabulary - 1 : r % vocabulary);
    Values loss(TN_FLOAT32, static_cast<size_t>(rows)), loss_only(loss);
    run(logits, rows, vocabulary, stride, labels, loss_only, 0.5f, false);
    expect(logits.bytes() == before.bytes(), "logits were written without being asked");
    run(logits, rows, vocabulary, stride, labels, loss, 0.5f, true);
    expect(loss.bytes() == loss_only.bytes(), "the loss depends on the gradient being asked for");
    std::vector<double> r_loss, r_gradient;
    Values gradient(dtype, static_cast<size_t>(rows * vocabulary));
    for (int64_t r = 0; r < rows; ++r) {
        const size_t row = static_cast<size_t>(r * stride);
        double largest = before[row], sum = 0;
        for (int64_t i = 0; i < vocabulary; ++i) largest = std::max(largest, before[row + static_cast<size_t>(i)]);
        for (int64_t i = 0; i < vocabulary; ++i) sum += std::exp(before[row + static_cast<size_t>(i)] - largest);
        const int64_t label = labels[static_cast<size_t>(r)];
        const bool ignored = label == TN_IGNORE_INDEX;
        r_loss.push_back(ignored ? 0 : largest + std::log(sum) - before[row + static_cast<size_t>(label)]);
        for (int64_t i = 0; i < vocabulary; ++i) {
            gradient.set(r_gradient.size(), logits[row + static_cast<size_t>(i)]);
            r_gradient.push_back(ignored ? 0 : 0.5 * (std::exp(before[row + static_cast<size_t>(i)] - largest) / sum - (i == label)));
        }
        for (int64_t i = vocabulary; i < stride; ++i)
            expect(logits[row + static_cast<size_t>(i)] == before[row + static_cast<size_t>(i)], "wrote between the rows");
    }
    close(loss, r_loss, "loss", 8);
    close(gradient, r_gradient, "gradient", 16);
}

}  // namespace

TEST("cross-entropy and its gradient agree with float64, ignored rows are zero") {
    for (tn_dtype dtype : {TN_FLOAT32, TN_BFLOAT16})
        for (int64_t vocabulary : {1, 2, 7, 8, 100, 4097, 9000})
            for (double deviation : {1.0, 30.0})
                for (int64_t gap : {0, 5, 8}) check(dtype, 7, vocabulary, deviation, gap);
}

TEST("cross-entropy of Qwen's vocabulary agrees with float64") {
    check(TN_FLOAT32, 3, 151936, 2);
    check(TN_BFLOAT16, 3, 151936, 2);
}

TEST("a label that is far behind still has an exact loss") {
    Values logits(TN_FLOAT32, 2), loss(TN_FLOAT32, 1);
    logits.set(0, 500);
    logits.set(1, -500);
    run(logits, 1, 2, 2, {1}, loss, 1, true);
    expect(loss[0] == 1000 && logits[0] == 1 && logits[1] == -1, "loss " + std::to_string(loss[0]));
}

TEST("cross-entropy has the same bits for any number of threads") {
    std::mt19937_64 random(2);
    const Values logits = Values::normal(TN_BFLOAT16, 50 * 999, random);
    const std::vector<int64_t> labels(50, 5);
    same_bits_for_any_thread_count([&] {
        Values copy = logits, loss(TN_FLOAT32, 50);
        run(copy, 50, 999, 999, labels, loss, 1, true);
        std::vector<uint8_t> bits = copy.bytes();
        bits.insert(bits.end(), loss.bytes().begin(), loss.bytes().end());
        return bits;
    });
}
