#include "harness.h"

namespace {

struct Product {
    int64_t m, n, k;
    bool a_transposed = false, b_transposed = false;
    int64_t gap = 0;  // elements between the rows of every matrix
};

int64_t stride(int64_t columns, const Product& p) { return columns + p.gap; }

tn_matmul_args arguments(const Product& p, Values& a, Values& b, Values& c, bool accumulate) {
    tn_matmul_args args{};
    args.struct_size = sizeof args;
    args.dtype = a.dtype();
    args.result_dtype = c.dtype();
    args.a_transposed = p.a_transposed;
    args.b_transposed = p.b_transposed;
    args.accumulate = accumulate;
    args.rows = p.m;
    args.columns = p.n;
    args.depth = p.k;
    args.a = a.data();
    args.a_stride = stride(p.a_transposed ? p.m : p.k, p);
    args.b = b.data();
    args.b_stride = stride(p.b_transposed ? p.k : p.n, p);
    args.c_MN = c.data();
    args.c_stride = stride(p.n, p);
    return args;
}

Values random_matrix(tn_dtype dtype, int64_t rows, int64_t columns, const Product& p, uint64_t seed) {
    std::mt19937_64 random(seed);
    return Values::normal(dtype, static_cast<size_t>(rows * stride(columns, p)), random);
}
Values left(tn_dtype dtype, const Product& p) {
    return p.a_transposed ? random_matrix(dtype, p.k, p.m, p, 1) : random_matrix(dtype, p.m, p.k, p, 1);
}
Values right(tn_dtype dtype, const Product& p) {
    return p.b_transposed ? random_matrix(dtype, p.n, p.k, p, 2) : random_matrix(dtype, p.k, p.n, p, 2);
}

void check(tn_dtype dtype, tn_dtype result, const Product& p, bool accumulate) {
    Values a = left(dtype, p), b = right(dtype, p), c = random_matrix(result, p.m, p.n, p, 3);
    const Values before = c;
    ok(tn_matmul(std::vector<tn_matmul_args>{arguments(p, a, b, c, accumulate)}.data(), nullptr));
    const int64_t a_stride = stride(p.a_transposed ? p.m : p.k, p), b_stride = stride(p.b_transposed ? p.k : p.n, p);
    std::vector<double> expected;
    Values actual(result, static_cast<size_t>(p.m * p.n));
    for (int64_t i = 0; i < p.m; ++i)
        for (int64_t j = 0; j < stride(p.n, p); ++j) {
            const size_t at = static_cast<size_t>(i * stride(p.n, p) + j);
            if (j >= p.n) {
                expect(c[at] == before[at], "wrote between the rows");
                continue;
            }
            double sum = accumulate ? before[at] : 0;
            for (int64_t q = 0; q < p.k; ++q)
                sum += a[static_cast<size_t>(p.a_transposed ? q * a_stride + i : i * a_stride + q)] *
                       b[static_cast<size_t>(p.b_transposed ? j * b_stride + q : q * b_stride + j)];
            actual.set(expected.size(), c[at]);
            expected.push_back(sum);
        }
    close(actual, expected, "c", 16);
}

std::vector<uint8_t> multiply(const Product& p, Values a, Values b, tn_dtype result = TN_FLOAT32) {
    Values c(result, static_cast<size_t>(p.m * p.n));
    const tn_matmul_args args = arguments(p, a, b, c, false);
    ok(tn_matmul(&args, nullptr));
    return c.bytes();
}

}  // namespace

TEST("a matrix product agrees with float64 for either layout, strided, added, in both types") {
    for (bool a_transposed : {false, true})
        for (bool b_transposed : {false, true})
            for (bool accumulate : {false, true})
                for (const auto& [m, n, k] : {std::tuple{1, 1, 1}, {7, 16, 8}, {6, 17, 31}, {13, 5, 300}, {150, 140, 65}, {3, 33, 0}}) {
                    const Product p{m, n, k, a_transposed, b_transposed, m % 2 * 3};
                    check(TN_FLOAT32, TN_FLOAT32, p, accumulate);
                    check(TN_BFLOAT16, TN_BFLOAT16, p, accumulate);
                    check(TN_BFLOAT16, TN_FLOAT32, p, accumulate);
                }
}

TEST("a row of a product has the same bits among any number of rows and at any position") {
    const int64_t n = 37, k = 300, most = 40;
    for (bool b_transposed : {false, true}) {
        Product whole{most, n, k, false, b_transposed};
        const Values a = left(TN_FLOAT32, whole), b = right(TN_FLOAT32, whole);
        const std::vector<uint8_t> all = multiply(whole, a, b);
        const size_t a_row = static_cast<size_t>(k), c_row = static_cast<size_t>(n) * 4;
        for (int64_t m = 1; m <= most; ++m)
            for (int64_t first : {int64_t{0}, most - m}) {
                Values some(TN_FLOAT32, static_cast<size_t>(m) * a_row);
                std::memcpy(some.data(), a.bytes().data() + static_cast<size_t>(first) * a_row * 4, some.bytes().size());
                const std::vector<uint8_t> rows = multiply({m, n, k, false, b_transposed}, some, b);
                expect(std::memcmp(rows.data(), all.data() + static_cast<size_t>(first) * c_row, rows.size()) == 0,
                       std::to_string(m) + " rows from " + std::to_string(first) + " have other bits");
            }
    }
}

TEST("a matrix product has the same bits for both layouts of B and among any number of columns") {
    const Product wide{23, 300, 290}, narrow{23, 9, 290};
    const Values a = left(TN_FLOAT32, wide), b = right(TN_FLOAT32, wide);
    Values transposed(TN_FLOAT32, b.size()), some(TN_FLOAT32, static_cast<size_t>(narrow.k * narrow.n));
    for (int64_t q = 0; q < wide.k; ++q)
        for (int64_t j = 0; j < wide.n; ++j) {
            const double x = b[static_cast<size_t>(q * wide.n + j)];
            transposed.set(static_cast<size_t>(j * wide.k + q), x);
            if (j >= 291) some.set(static_cast<size_t>(q * narrow.n + j - 291), x);
        }
    const std::vector<uint8_t> all = multiply(wide, a, b);
    expect(multiply({23, 300, 290, false, true}, a, transposed) == all, "B transposed gives other bits");
    const std::vector<uint8_t> last = multiply(narrow, a, some);
    for (size_t i = 0; i < 23; ++i)
        expect(std::memcmp(last.data() + i * 36, all.data() + (i * 300 + 291) * 4, 36) == 0, "the last columns have other bits");
}

TEST("a matrix product has the same bits for any number of threads") {
    for (bool a_transposed : {false, true})
        for (const auto& [m, n, k] : {std::tuple{200, 150, 100}, {5, 700, 64}, {60, 16, 900}}) {
            const Product p{m, n, k, a_transposed, true};
            const Values a = left(TN_FLOAT32, p), b = right(TN_FLOAT32, p);
            same_bits_for_any_thread_count([&] { return multiply(p, a, b); });
        }
}

TEST("a long sum over tokens is the sum of its parts, cut anywhere") {
    const Product whole{40, 48, 3000, true, false};
    const Values a = left(TN_FLOAT32, whole), b = right(TN_FLOAT32, whole);
    const std::vector<uint8_t> all = multiply(whole, a, b);
    Values once(TN_FLOAT32, 40 * 48);
    std::memcpy(once.data(), all.data(), all.size());
    Values parts(TN_FLOAT32, 40 * 48);
    for (int64_t first = 0, length; first < whole.k; first += length) {
        length = std::min<int64_t>(1 + first % 701, whole.k - first);
        Values a_part(TN_FLOAT32, static_cast<size_t>(length * 40)), b_part(TN_FLOAT32, static_cast<size_t>(length * 48));
        std::memcpy(a_part.data(), a.bytes().data() + first * 40 * 4, a_part.bytes().size());
        std::memcpy(b_part.data(), b.bytes().data() + first * 48 * 4, b_part.bytes().size());
        const tn_matmul_args args = arguments({40, 48, length, true, false}, a_part, b_part, parts, first > 0);
        ok(tn_matmul(&args, nullptr));
    }
    double largest = 0, error = 0;
    for (size_t i = 0; i < once.size(); ++i) {
        largest = std::max(largest, std::fabs(once[i]));
        error = std::max(error, std::fabs(once[i] - parts[i]));
    }
    expect(error < 5e-7 * largest, "the parts differ by " + std::to_string(error / largest * 1e6) + "e-6 of the largest element");
}
