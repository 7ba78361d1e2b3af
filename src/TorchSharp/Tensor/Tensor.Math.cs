using TorchSharp.Native;

namespace TorchSharp;

public static partial class torch
{
    /// <summary>Element-wise functions of one tensor.</summary>
    public partial class Tensor
    {
        public Tensor abs() => Aten.Call("abs", this);
        public Tensor abs_() => Aten.InPlace("abs_", this);
        public Tensor ceil() => Aten.Call("ceil", this);
        public Tensor cos() => Aten.Call("cos", this);
        public Tensor cos_() => Aten.InPlace("cos_", this);
        public Tensor erf() => Aten.Call("erf", this);
        public Tensor exp() => Aten.Call("exp", this);
        public Tensor exp_() => Aten.InPlace("exp_", this);
        public Tensor expm1() => Aten.Call("expm1", this);
        public Tensor floor() => Aten.Call("floor", this);
        public Tensor isfinite() => Aten.Call("isfinite", this);
        public Tensor isinf() => Aten.Call("isinf", this);
        public Tensor isnan() => Aten.Call("isnan", this);
        public Tensor log() => Aten.Call("log", this);
        public Tensor log_() => Aten.InPlace("log_", this);
        public Tensor log1p() => Aten.Call("log1p", this);
        public Tensor log2() => Aten.Call("log2", this);
        public Tensor neg() => Aten.Call("neg", this);
        public Tensor negative() => neg();
        public Tensor neg_() => Aten.InPlace("neg_", this);
        public Tensor nan_to_num(double nan = 0, double? posinf = null, double? neginf = null) =>
            Aten.Call("nan_to_num", this, nan, posinf, neginf);
        public Tensor reciprocal() => Aten.Call("reciprocal", this);
        public Tensor reciprocal_() => Aten.InPlace("reciprocal_", this);
        public Tensor relu() => Aten.Call("relu", this);
        public Tensor round() => Aten.Call("round", this);
        public Tensor rsqrt() => Aten.Call("rsqrt", this);
        public Tensor rsqrt_() => Aten.InPlace("rsqrt_", this);
        public Tensor sigmoid() => Aten.Call("sigmoid", this);
        public Tensor sigmoid_() => Aten.InPlace("sigmoid_", this);
        public Tensor sign() => Aten.Call("sign", this);
        public Tensor silu() => Aten.Call("silu", this);
        public Tensor silu_() => Aten.InPlace("silu_", this);
        public Tensor sin() => Aten.Call("sin", this);
        public Tensor sin_() => Aten.InPlace("sin_", this);
        public Tensor sqrt() => Aten.Call("sqrt", this);
        public Tensor sqrt_() => Aten.InPlace("sqrt_", this);
        public Tensor square() => Aten.Call("square", this);
        public Tensor tanh() => Aten.Call("tanh", this);
        public Tensor tanh_() => Aten.InPlace("tanh_", this);
        public Tensor trunc() => Aten.Call("trunc", this);

        public Tensor softmax(long dim, ScalarType? dtype = null) => Aten.Call("softmax.int", this, dim, dtype);
        public Tensor log_softmax(long dim, ScalarType? dtype = null) => Aten.Call("log_softmax.int", this, dim, dtype);
        public Tensor logsumexp(long dim, bool keepdim = false) => Aten.Call("logsumexp", this, new[] { dim }, keepdim);
        public Tensor cumsum(long dim, ScalarType? type = null) => Aten.Call("cumsum", this, dim, type);

        public Tensor fill_(Scalar value) => Aten.InPlace("fill_.Scalar", this, value);
        public Tensor zero_() => Aten.InPlace("zero_", this);
        /// <summary>Broadcasts, and converts dtype and device.</summary>
        public Tensor copy_(Tensor source, bool nonBlocking = false) => Aten.InPlace("copy_", this, source, nonBlocking);
        public Tensor tril(long diagonal = 0) => Aten.Call("tril", this, diagonal);
        public Tensor tril_(long diagonal = 0) => Aten.InPlace("tril_", this, diagonal);
        public Tensor triu(long diagonal = 0) => Aten.Call("triu", this, diagonal);
        public Tensor triu_(long diagonal = 0) => Aten.InPlace("triu_", this, diagonal);
    }
}
