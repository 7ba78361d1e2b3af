#include "device_attention.h"

#include <sstream>

namespace {

std::vector<int32_t> boundaries(const std::vector<int32_t>& lengths) {
    std::vector<int32_t> cu{0};
    for (int32_t length : lengths) cu.push_back(cu.back() + length);
    return cu;
}

// A sum of products in the reference. Each rounding to the tensors' type costs a share of its magnitude; float32 sums under
// a product, as of dp - delta, which may cancel, cost a share of slack.
struct Sum {
    double value = 0, magnitude = 0, slack = 0;

    void add(double x, double sums = 0, double rounded_sums = 0) {
        value += x;
        magnitude += std::fabs(x) + std::fabs(rounded_sums);
        slack += std::fabs(sums);
    }
};

// x as the type stores it.
double rounded(tn_dtype dtype, double x) {
    if (x == 0 || !std::isfinite(x)) return x;
    const int digits = dtype == TN_BFLOAT16 ? 8 : 11, smallest = dtype == TN_BFLOAT16 ? -133 : -24;
    int exponent;
    std::frexp(x, &exponent);
    const int unit = std::max(exponent - digits, smallest);
    return std::ldexp(std::nearbyint(std::ldexp(x, -unit)), unit);
}

}  // namespace

struct Result {
    std::vector<Sum> exact;
    std::vector<double> math;  // every product, and the softmax, rounded to the tensors' type

    explicit Result(size_t size) : exact(size), math(size) {}
};

struct Reference {
    Result out, dq, dk, dv;
    std::vector<double> lse;
};

DeviceAttention::~DeviceAttention() = default;

DeviceAttention::DeviceAttention(const Case& c, uint64_t seed)
    : q(c.dtype, static_cast<size_t>(boundaries(c.q_lengths).back()) * (c.q_heads * c.head_dim + c.token_gap)),
      k(c.dtype, static_cast<size_t>(boundaries(c.k_lengths).back()) * (c.kv_heads * c.head_dim + c.token_gap)), v(c.dtype, k.size()),
      dout(c.dtype, q.size()), out(c.dtype, q.size()), dq(c.dtype, q.size()), dk(c.dtype, k.size()), dv(c.dtype, k.size()),
      lse(static_cast<size_t>(boundaries(c.q_lengths).back()) * c.q_heads), scratch(lse.values().size() * c.head_dim), c_(c),
      cu_q_(boundaries(c.q_lengths)),
      cu_k_(boundaries(c.k_lengths)), q_stride_(c.q_heads * c.head_dim + c.token_gap), k_stride_(c.kv_heads * c.head_dim + c.token_gap) {
    shape.device = TN_DEVICE_CUDA;
    shape.dtype = c.dtype;
    shape.q_tokens = cu_q_.back();
    shape.k_tokens = cu_k_.back();
    shape.q_heads = c.q_heads;
    shape.kv_heads = c.kv_heads;
    shape.head_dim = c.head_dim;
    shape.sequences = static_cast<int32_t>(c.q_lengths.size());
    shape.cu_seqlens_q = cu_q_.data();
    shape.cu_seqlens_k = cu_k_.data();
    shape.scale = 1 / std::sqrt(static_cast<float>(c.head_dim));
    shape.causal = c.causal;
    shape.window = c.window;
    std::mt19937_64 random(seed);
    for (Elements* t : {&q, &k, &v}) t->fill_normal(random, c.deviation);
    dout.fill_normal(random, 1);
    upload();
}

void DeviceAttention::upload() {
    for (Elements* t : {&q, &k, &v, &dout}) t->upload();
}

void DeviceAttention::poison() {
    for (Elements* t : {&out, &dq, &dk, &dv}) {
        t->poison();
        t->upload();
    }
    lse.poison();
    scratch.poison();
}

tn_attention_forward_args DeviceAttention::forward_args() const {
    tn_attention_forward_args a{};
    a.struct_size = sizeof a;
    a.shape = shape;
    a.q_TNH = {q.device(), q_stride_, c_.head_dim};
    a.k_TMH = {k.device(), k_stride_, c_.head_dim};
    a.v_TMH = {v.device(), k_stride_, c_.head_dim};
    a.out_TNH = {out.device(), q_stride_, c_.head_dim};
    a.lse_NT = lse.device();
    return a;
}

tn_attention_backward_args DeviceAttention::backward_args(bool deterministic) const {
    const tn_attention_forward_args f = forward_args();
    tn_attention_backward_args a{};
    a.struct_size = sizeof a;
    a.deterministic = deterministic;
    a.shape = shape;
    a.q_TNH = f.q_TNH;
    a.k_TMH = f.k_TMH;
    a.v_TMH = f.v_TMH;
    a.out_TNH = f.out_TNH;
    a.lse_NT = lse.device();
    a.dout_TNH = {dout.device(), q_stride_, c_.head_dim};
    a.dq_TNH = {dq.device(), q_stride_, c_.head_dim};
    a.dk_TMH = {dk.device(), k_stride_, c_.head_dim};
    a.dv_TMH = {dv.device(), k_stride_, c_.head_dim};
    a.scratch = scratch.device();
    ok(tn_attention_backward_scratch_bytes(&shape, deterministic, &a.scratch_bytes));
    return a;
}

static bool has_hopper_kernels(int32_t head_dim) { return current_device().major == 9 && (head_dim == 64 || head_dim == 128); }

void DeviceAttention::start(Kernels kernels, cudaStream_t stream) {
    const tn_attention_forward_args forward = forward_args();
    const tn_attention_backward_args backward = backward_args(fixed_order(kernels));
    if (kernels == Kernels::portable) {
        portable_attention_forward(forward, stream);
        attention_delta(backward, {scratch.device(), 1, shape.q_tokens, 1}, nullptr, stream);
        portable_attention_backward(backward, scratch.device(), stream);
    } else if (kernels == Kernels::portable_any_order || kernels == Kernels::portable_any_order_sm80) {
        const int32_t shared_bytes = kernels == Kernels::portable_any_order ? current_device().shared_bytes : 163 * 1024;
        expect(portable_attention_backward_any_order_fits(shape.head_dim, shared_bytes), "too little shared memory");
        const RowFloats delta = delta_in_dq(backward);
        portable_attention_forward(forward, stream);
        attention_delta(backward, delta, scratch.device(), stream);
        portable_attention_backward_any_order(backward, delta, scratch.device(), shared_bytes, stream);
        attention_round_dq(backward, scratch.device(), true, stream);
    } else if (kernels != Kernels::deterministic && kernels != Kernels::any_order && has_hopper_kernels(shape.head_dim)) {
        const bool alone = kernels == Kernels::deterministic_alone || kernels == Kernels::any_order_alone;
        const bool fours = kernels == Kernels::deterministic_fours || kernels == Kernels::any_order_fours;
        const bool as_is_best = kernels == Kernels::any_order_as_is_best;
        const Sharing sharing = as_is_best ? Sharing{} : alone ? Sharing{1} : fours ? Sharing{4, 4} : Sharing{4, 2, 2};
        hopper_attention_forward(forward, stream);
        if (fixed_order(kernels)) {
            const RowFloats delta{scratch.device(), 1, shape.q_tokens, 1};
            attention_delta(backward, delta, nullptr, stream);
            hopper_attention_backward(backward, delta, sharing, stream);
        } else {
            const RowFloats delta = delta_in_dq(backward);
            attention_delta(backward, delta, scratch.device(), stream);
            hopper_attention_backward_any_order(backward, delta, scratch.device(), sharing, stream);
            attention_round_dq(backward, scratch.device(), false, stream);
        }
    } else {
        ok(tn_attention_forward(&forward, stream));
        ok(tn_attention_backward(&backward, stream));
    }
}

void DeviceAttention::download() {
    for (Elements* t : {&out, &dq, &dk, &dv}) t->download();
    lse.download();
}

std::vector<uint16_t> DeviceAttention::bits(bool with_dq) const {
    std::vector<uint16_t> all;
    for (const Elements* t : {&out, &dk, &dv}) all.insert(all.end(), t->bits().begin(), t->bits().end());
    if (with_dq) all.insert(all.end(), dq.bits().begin(), dq.bits().end());
    const uint16_t* floats = reinterpret_cast<const uint16_t*>(lse.values().data());
    all.insert(all.end(), floats, floats + 2 * lse.values().size());
    return all;
}

namespace {

// Scores, probabilities and their gradients of one head and sequence, exact and by rounded matrix products.
struct Scores {
    std::vector<double> p, ds, math_p, math_ds, sums, delta_sums;

    explicit Scores(size_t size) : p(size), ds(size), math_p(size), math_ds(size), sums(size), delta_sums(size) {}
};

// Where few keys are seen the kernels take delta from the probabilities, else from out as it was rounded.
constexpr int64_t few_keys = 16;

}  // namespace

void DeviceAttention::check(Kernels kernels) {
    run(kernels);
    const int64_t group = c_.q_heads / c_.kv_heads, dim = c_.head_dim;
    if (!reference_) {
        reference_.reset(new Reference{Result(out.size()), Result(out.size()), Result(dk.size()), Result(dk.size()),
                                       std::vector<double>(lse.values().size())});
        Reference& r = *reference_;
        const std::vector<double> q = this->q.values(), k = this->k.values(), v = this->v.values(), dout = this->dout.values();
        const auto to_type = [&](double x) { return rounded(c_.dtype, x); };
        for (size_t s = 0; s + 1 < cu_q_.size(); ++s)
            for (int64_t m = 0; m < c_.kv_heads; ++m) {
                const int64_t lq = c_.q_lengths[s], lk = c_.k_lengths[s];
                const auto ki = [&](int64_t j) { return static_cast<size_t>((cu_k_[s] + j) * k_stride_ + m * dim); };
                const auto qi = [&](int64_t n, int64_t i) { return static_cast<size_t>((cu_q_[s] + i) * q_stride_ + n * dim); };
                std::vector<Scores> heads(static_cast<size_t>(group), Scores(static_cast<size_t>(lq * lk)));
#pragma omp parallel for collapse(2) schedule(dynamic, 4)
                for (int64_t g = 0; g < group; ++g)
                    for (int64_t i = 0; i < lq; ++i) {
                        const int64_t n = m * group + g, position = i + lk - lq;
                        const size_t qn = qi(n, i);
                        const int64_t from = c_.window < 0 ? 0 : std::max<int64_t>(0, position - c_.window);
                        const int64_t end = c_.causal ? std::min(lk, position + 1) : lk;
                        Scores& scores = heads[static_cast<size_t>(g)];
                        double *p = &scores.p[static_cast<size_t>(i * lk)], *math_p = &scores.math_p[static_cast<size_t>(i * lk)];
                        double largest = -std::numeric_limits<double>::infinity(), math_largest = largest, sum = 0, math_sum = 0;
                        for (int64_t j = from; j < end; ++j) {
                            double dot = 0;
                            for (int64_t h = 0; h < dim; ++h) dot += q[qn + h] * k[ki(j) + h];
                            p[j] = shape.scale * dot;
                            math_p[j] = to_type(shape.scale * to_type(dot));
                            largest = std::max(largest, p[j]);
                            math_largest = std::max(math_largest, math_p[j]);
                        }
                        for (int64_t j = from; j < end; ++j) {
                            sum += p[j] = std::exp(p[j] - largest);
                            math_sum += math_p[j] = std::exp(math_p[j] - math_largest);
                        }
                        r.lse[static_cast<size_t>(n * shape.q_tokens + cu_q_[s] + i)] = sum > 0 ? largest + std::log(sum) : largest;
                        std::vector<double> dp(static_cast<size_t>(lk)), sums(static_cast<size_t>(lk));
                        double delta = 0, math_delta = 0, delta_sums = 0;
                        for (int64_t j = from; j < end; ++j) {
                            p[j] /= sum;
                            math_p[j] = to_type(math_p[j] / math_sum);
                            for (int64_t h = 0; h < dim; ++h) {
                                const double product = dout[qn + h] * v[ki(j) + h];
                                dp[j] += product;
                                sums[j] += std::fabs(product);
                                r.out.exact[qn + h].add(p[j] * v[ki(j) + h]);
                                r.out.math[qn + h] += math_p[j] * v[ki(j) + h];
                            }
                            delta += p[j] * dp[j];
                            math_delta += math_p[j] * to_type(dp[j]);
                        }
                        for (int64_t h = 0; h < dim; ++h) {
                            delta_sums += std::fabs(dout[qn + h] * r.out.exact[qn + h].value);
                            r.out.math[qn + h] = to_type(r.out.math[qn + h]);
                        }
                        for (int64_t j = from; j < end; ++j) {
                            const size_t at = static_cast<size_t>(i * lk + j);
                            scores.ds[at] = shape.scale * p[j] * (dp[j] - delta);
                            scores.math_ds[at] = to_type(shape.scale * to_type(math_p[j] * (to_type(dp[j]) - math_delta)));
                            scores.sums[at] = shape.scale * p[j] * (sums[j] + delta_sums);
                            scores.delta_sums[at] = end - from <= few_keys ? 0 : shape.scale * p[j] * delta_sums;
                            for (int64_t h = 0; h < dim; ++h) {
                                const double x = k[ki(j) + h];
                                r.dq.exact[qn + h].add(scores.ds[at] * x, scores.sums[at] * x, scores.delta_sums[at] * x);
                                r.dq.math[qn + h] += scores.math_ds[at] * x;
                            }
                        }
                        for (int64_t h = 0; h < dim; ++h) r.dq.math[qn + h] = to_type(r.dq.math[qn + h]);
                    }
#pragma omp parallel for schedule(dynamic, 4)
                for (int64_t j = 0; j < lk; ++j) {
                    for (int64_t g = 0; g < group; ++g)
                        for (int64_t i = 0; i < lq; ++i) {
                            const Scores& scores = heads[static_cast<size_t>(g)];
                            const size_t at = static_cast<size_t>(i * lk + j), qn = qi(m * group + g, i);
                            if (scores.p[at] == 0 && scores.math_p[at] == 0) continue;
                            for (int64_t h = 0; h < dim; ++h) {
                                r.dv.exact[ki(j) + h].add(scores.p[at] * dout[qn + h]);
                                r.dv.math[ki(j) + h] += scores.math_p[at] * dout[qn + h];
                                r.dk.exact[ki(j) + h].add(scores.ds[at] * q[qn + h], scores.sums[at] * q[qn + h], scores.delta_sums[at] * q[qn + h]);
                                r.dk.math[ki(j) + h] += scores.math_ds[at] * q[qn + h];
                            }
                        }
                    for (int64_t h = 0; h < dim; ++h) {
                        r.dv.math[ki(j) + h] = to_type(r.dv.math[ki(j) + h]);
                        r.dk.math[ki(j) + h] = to_type(r.dk.math[ki(j) + h]);
                    }
                }
            }
    }

    const Reference& r = *reference_;
    for (size_t i = 0; i < r.lse.size(); ++i)
        if (const double actual = lse.values()[i]; !(actual == r.lse[i] || std::fabs(actual - r.lse[i]) <= 1e-3))
            fail("lse is " + std::to_string(actual) + ", not " + std::to_string(r.lse[i]));
    // One rounding of a factor of each product and one of the result, half a unit each; twice that for float32 underneath.
    const double share = 4 * std::ldexp(1, c_.dtype == TN_BFLOAT16 ? -9 : -12);
    const auto compare = [&](const Elements& actual, const Result& result, int64_t stride, const char* name) {
        double error = 0, math_error = 0;
        for (size_t i = 0; i < result.exact.size(); ++i) {
            const Sum& expected = result.exact[i];
            if (static_cast<int64_t>(i % stride) >= stride - c_.token_gap) {
                expect(actual.bits()[i] == 0xffff, std::string(name) + ": wrote between the tokens");
                continue;
            }
            const double off = std::fabs(actual[i] - expected.value);
            if (const double allowed = share * expected.magnitude + std::ldexp(expected.slack, -18) + 1e-6; !(off <= allowed)) {
                std::ostringstream text;
                text << name << "[" << i << "] is " << actual[i] << ", expected " << expected.value << " +- " << allowed;
                fail(text.str());
            }
            error = std::max(error, off);
            math_error = std::max(math_error, std::fabs(result.math[i] - expected.value));
        }
        // Where a row sees one key, its probability is 1 and ds exactly 0, for rounded matrix products too; ours are two float32
        // sums of products of the inputs' magnitude which differ in their last bits.
        if (error > 2 * math_error + 4e-5 * std::max(1., c_.deviation * c_.deviation))
            fail(std::string(name) + " is off by " + std::to_string(error) + ", attention by matrix products by " + std::to_string(math_error));
    };
    compare(out, r.out, q_stride_, "out");
    compare(dq, r.dq, q_stride_, "dq");
    compare(dk, r.dk, k_stride_, "dk");
    compare(dv, r.dv, k_stride_, "dv");
}
