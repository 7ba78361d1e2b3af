using static TorchSharp.torch;

namespace TorchSharp
{
    public static partial class torch
    {
        public static partial class nn
        {
            public static Modules.Linear Linear(long inputSize, long outputSize, bool hasBias = true, Device? device = null, ScalarType? dtype = null) =>
                new(inputSize, outputSize, hasBias, device, dtype);
        }
    }
}

namespace TorchSharp.Modules
{
    /// <summary>x @ weight^T + bias, weight [out, in], drawn uniformly within 1 / sqrt(in).</summary>
    public sealed class Linear : nn.Module<Tensor, Tensor>
    {
        internal Linear(long inputSize, long outputSize, bool hasBias, Device? device, ScalarType? dtype) : base(nameof(Linear))
        {
            weight = new Parameter(empty(outputSize, inputSize, dtype, device));
            nn.init.kaiming_uniform_(weight, Math.Sqrt(5));
            register_parameter(nameof(weight), weight);
            if (hasBias)
            {
                double bound = 1 / Math.Sqrt(inputSize);
                bias = new Parameter(empty(outputSize, dtype, device));
                nn.init.uniform_(bias, -bound, bound);
                register_parameter(nameof(bias), bias);
            }
        }

        public Parameter weight { get; }
        public Parameter? bias { get; }
        public long in_features => weight.size(1);
        public long out_features => weight.size(0);

        public override Tensor forward(Tensor input) => nn.functional.linear(input, weight, bias);
    }
}
