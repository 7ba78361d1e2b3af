#include "harness.h"

namespace {

void drop(Values& x, Values& y, float probability, uint64_t seed, uint64_t offset = 0) {
    tn_dropout_args a{};
    a.struct_size = sizeof a;
    a.dtype = x.dtype();
    a.probability = probability;
    a.count = static_cast<int64_t>(x.size());
    a.x = x.data();
    a.y = y.data();
    a.seed = seed;
    a.offset = offset;
    ok(tn_dropout(&a, nullptr));
}

}  // namespace

TEST("dropout drops its share, scales the rest, and depends on seed and offset alone") {
    const size_t count = 200003;
    Values x(TN_FLOAT32, count), y(TN_FLOAT32, count), again(TN_FLOAT32, count), other(TN_FLOAT32, count);
    for (size_t i = 0; i < count; ++i) x.set(i, 1);
    drop(x, y, 0.25f, 42);
    size_t zeros = 0;
    for (size_t i = 0; i < count; ++i) {
        zeros += y[i] == 0;
        expect(y[i] == 0 || y[i] == static_cast<double>(static_cast<float>(1 / 0.75)), "a kept element is not scaled");
    }
    // Four standard deviations of a binomial count.
    expect(std::fabs(static_cast<double>(zeros) - 0.25 * count) < 4 * std::sqrt(0.25 * 0.75 * count), std::to_string(zeros) + " dropped");
    drop(x, again, 0.25f, 42);
    expect(again.bytes() == y.bytes(), "the same seed gives another mask");
    drop(x, other, 0.25f, 43);
    expect(other.bytes() != y.bytes(), "another seed gives the same mask");
    Values tail_x(TN_FLOAT32, count - 8), tail(TN_FLOAT32, count - 8);
    for (size_t i = 0; i < count - 8; ++i) tail_x.set(i, 1);
    drop(tail_x, tail, 0.25f, 42, 8);
    for (size_t i = 0; i + 8 < count; ++i) expect(tail[i] == y[i + 8], "the offset does not continue the stream");
    drop(x, again, 0, 42);
    expect(again.bytes() == x.bytes(), "probability 0 is not the identity");
}

TEST("dropout has the same bits for any number of threads") {
    std::mt19937_64 random(5);
    Values x = Values::normal(TN_FLOAT32, 2 * 37 * 51, random);
    same_bits_for_any_thread_count([&] {
        Values dropped(TN_FLOAT32, x.size());
        drop(x, dropped, 0.3f, 9);
        return dropped.bytes();
    });
}
