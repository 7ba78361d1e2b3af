using TorchSharp.Native;

namespace TorchSharp;

public static partial class torch
{
    public static partial class nn
    {
        public enum Reduction
        {
            None = 0,
            Mean = 1,
            Sum = 2,
        }

        public static class functional
        {
            /// <summary>Whether this libtorch has the operator (2.0 and later).</summary>
            public static bool has_scaled_dot_product_attention => Aten.Has("scaled_dot_product_attention");

            /// <summary>input [.., in] @ weights[out, in]^T + bias[out].</summary>
            public static Tensor linear(Tensor input, Tensor weights, Tensor? bias = null) => Aten.Call("linear", input, weights, bias);

            /// <summary>Rows of weights [num, dims] by integer ids.</summary>
            public static Tensor embedding(Tensor input, Tensor weights) => Aten.Call("embedding", weights, input);

            /// <summary>input [N, C], target [N] of class numbers; those equal to ignore_index do not count.</summary>
            public static Tensor cross_entropy(Tensor input, Tensor target, Tensor? weight = null, long ignore_index = -100,
                Reduction reduction = Reduction.Mean, double label_smoothing = 0.0) =>
                Aten.Call("cross_entropy_loss", input, target, weight, (long)reduction, ignore_index, label_smoothing);

            public static Tensor softmax(Tensor input, long dim, ScalarType? dtype = null) => input.softmax(dim, dtype);
            public static Tensor log_softmax(Tensor x, long dim) => x.log_softmax(dim);
            public static Tensor silu(Tensor x, bool inplace = false) => inplace ? x.silu_() : x.silu();
            public static Tensor relu(Tensor x) => x.relu();
            public static Tensor gelu(Tensor x) => Aten.Call("gelu", x);

            public static Tensor dropout(Tensor input, double p = 0.5, bool training = true, bool inplace = false) =>
                inplace ? Aten.InPlace("dropout_", input, p, training) : Aten.Call("dropout", input, p, training);

            public static Tensor layer_norm(Tensor input, long[] normalized_shape, Tensor? weight = null, Tensor? bias = null,
                double eps = 1e-5) =>
                Aten.Call("layer_norm", input, normalized_shape, weight, bias, eps);

            /// <summary>query [.., N, T, H]; <see cref="has_scaled_dot_product_attention"/> tells whether it can be called.</summary>
            public static Tensor scaled_dot_product_attention(Tensor query, Tensor key, Tensor value, Tensor? attn_mask = null,
                double p = 0.0, bool is_casual = false)
            {
                if (!has_scaled_dot_product_attention)
                {
                    throw new TorchException(
                        $"scaled_dot_product_attention is not in libtorch {loaded_version}; it needs 2.0 or later");
                }
                return Aten.Call("scaled_dot_product_attention", query, key, value, attn_mask, p, is_casual);
            }
        }
    }
}
