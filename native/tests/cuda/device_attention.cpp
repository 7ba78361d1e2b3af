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

    void add(double x, double sums = 0) {
        value += x;
        magnitude += std::fabs(x);
        slack += std::fabs(sums);
    }
};

}  // namespace

DeviceAttention::DeviceAttention(const Case& c, uint64_t seed)
    : q(c.dtype, static_cast<size_t>(boundaries(c.q_lengths).back()) * (c.q_heads * c.head_dim + c.token_gap)),
      k(c.dtype, static_cast<size_t>(boundaries(c.k_lengths).back()) * (c.kv_heads * c.head_dim + c.token_gap)), v(c.dtype, k.size()),
      dout(c.dtype, q.size()), out(c.dtype, q.size()), dq(c.dtype, q.size()), dk(c.dtype, k.size()), dv(c.dtype, k.size()),
      lse(static_cast<size_t>(boundaries(c.q_lengths).back()) * c.q_heads), scratch(lse.values().size()), c_(c),
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

tn_attention_backward_args DeviceAttention::backward_args() const {
    const tn_attention_forward_args f = forward_args();
    tn_attention_backward_args a{};
    a.struct_size = sizeof a;
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
    a.scratch_bytes = static_cast<int64_t>(4 * scratch.values().size());
    return a;
}

void DeviceAttention::start(Kernels kernels, cudaStream_t stream) {
    const tn_attention_forward_args forward = forward_args();
    const tn_attention_backward_args backward = backward_args();
    if (kernels == Kernels::chosen) {
        ok(tn_attention_forward(&forward, stream));
        ok(tn_attention_backward(&backward, stream));
    } else {
        portable_attention_forward(forward, stream);
        attention_delta(backward, scratch.device(), stream);
        portable_attention_backward(backward, scratch.device(), stream);
    }
}

void DeviceAttention::download() {
    for (Elements* t : {&out, &dq, &dk, &dv}) t->download();
    lse.download();
}

std::vector<uint16_t> DeviceAttention::bits() const {
    std::vector<uint16_t> all;
    for (const Elements* t : {&out, &dq, &dk, &dv}) all.insert(all.end(), t->bits().begin(), t->bits().end());
    const uint16_t* floats = reinterpret_cast<const uint16_t*>(lse.values().data());
    all.insert(all.end(), floats, floats + 2 * lse.values().size());
    return all;
}

void DeviceAttention::check(Kernels kernels) {
    run(kernels);
    std::vector<Sum> r_out(out.size()), r_dq(dq.size()), r_dk(dk.size()), r_dv(dv.size());
    const std::vector<double> q = this->q.values(), k = this->k.values(), v = this->v.values(), dout = this->dout.values(),
                              out = this->out.values();
    const int64_t group = c_.q_heads / c_.kv_heads, dim = c_.head_dim;
    for (size_t s = 0; s + 1 < cu_q_.size(); ++s)
        for (int64_t n = 0; n < c_.q_heads; ++n)
            for (int64_t i = 0; i < c_.q_lengths[s]; ++i) {
                const int64_t lk = c_.k_lengths[s], position = i + lk - c_.q_lengths[s];
                const size_t qi = static_cast<size_t>((cu_q_[s] + i) * q_stride_ + n * dim);
                const auto ki = [&](int64_t j) { return static_cast<size_t>((cu_k_[s] + j) * k_stride_ + n / group * dim); };
                const int64_t from = c_.window < 0 ? 0 : std::max<int64_t>(0, position - c_.window);
                const int64_t end = c_.causal ? std::min(lk, position + 1) : lk;
                std::vector<double> p(static_cast<size_t>(std::max<int64_t>(lk, 1)));
                double largest = -std::numeric_limits<double>::infinity(), sum = 0, delta = 0, delta_sums = 0;
                for (int64_t j = from; j < end; ++j) {
                    for (int64_t h = 0; h < dim; ++h) p[j] += static_cast<double>(shape.scale) * q[qi + h] * k[ki(j) + h];
                    largest = std::max(largest, p[j]);
                }
                for (int64_t j = from; j < end; ++j) sum += p[j] = std::exp(p[j] - largest);
                const double expected = sum > 0 ? largest + std::log(sum) : largest;
                const double actual = lse.values()[static_cast<size_t>(n * shape.q_tokens + cu_q_[s] + i)];
                if (!(actual == expected || std::fabs(actual - expected) <= 1e-3))
                    fail("lse is " + std::to_string(actual) + ", not " + std::to_string(expected));
                // From out as stored, which out's own check holds close.
                for (int64_t h = 0; h < dim; ++h) {
                    delta += dout[qi + h] * out[qi + h];
                    delta_sums += std::fabs(dout[qi + h] * out[qi + h]);
                }
                for (int64_t j = from; j < end; ++j) {
                    p[j] /= sum;
                    double dp = 0, sums = delta_sums;
                    for (int64_t h = 0; h < dim; ++h) {
                        r_out[qi + h].add(p[j] * v[ki(j) + h]);
                        r_dv[ki(j) + h].add(p[j] * dout[qi + h]);
                        dp += dout[qi + h] * v[ki(j) + h];
                        sums += std::fabs(dout[qi + h] * v[ki(j) + h]);
                    }
                    const double ds = static_cast<double>(shape.scale) * p[j] * (dp - delta);
                    for (int64_t h = 0; h < dim; ++h) {
                        r_dq[qi + h].add(ds * k[ki(j) + h], shape.scale * p[j] * sums * k[ki(j) + h]);
                        r_dk[ki(j) + h].add(ds * q[qi + h], shape.scale * p[j] * sums * q[qi + h]);
                    }
                }
            }
    // One rounding of a factor of each product and one of the result, half a unit each; twice that for float32 underneath.
    const double share = 4 * std::ldexp(1, c_.dtype == TN_BFLOAT16 ? -9 : -12);
    const auto compare = [&](const Elements& actual, const std::vector<Sum>& expected, int64_t stride, const char* name) {
        for (size_t i = 0; i < expected.size(); ++i) {
            if (static_cast<int64_t>(i % stride) >= stride - c_.token_gap) {
                expect(actual.bits()[i] == 0xffff, std::string(name) + ": wrote between the tokens");
            } else if (const double allowed = share * expected[i].magnitude + std::ldexp(expected[i].slack, -18) + 1e-6;
                       !(std::fabs(actual[i] - expected[i].value) <= allowed)) {
                std::ostringstream text;
                text << name << "[" << i << "] is " << actual[i] << ", expected " << expected[i].value << " +- " << allowed;
                fail(text.str());
            }
        }
    };
    compare(this->out, r_out, q_stride_, "out");
    compare(dq, r_dq, q_stride_, "dq");
    compare(dk, r_dk, k_stride_, "dk");
    compare(dv, r_dv, k_stride_, "dv");
}
