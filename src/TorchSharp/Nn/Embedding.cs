using static TorchSharp.torch;

namespace TorchSharp
{
    public static partial class torch
    {
        public static partial class nn
        {
            public static Modules.Embedding Embedding(long num_embeddings, long embedding_dims, Device? device = null, ScalarType? dtype = null) =>
                new(num_embeddings, embedding_dims, device, dtype);
        }
    }
}

namespace TorchSharp.Modules
{
    /// <summary>Rows of weight [num, dims] by int64 ids; drawn from the standard normal distribution.</summary>
    public sealed class Embedding : nn.Module<Tensor, Tensor>
    {
        internal Embedding(long count, long dims, Device? device, ScalarType? dtype) : base(nameof(Embedding))
        {
            weight = new Parameter(empty(count, dims, dtype, device));
            nn.init.normal_(weight);
            register_parameter(nameof(weight), weight);
        }

        public Parameter weight { get; }

        public override Tensor forward(Tensor input) => nn.functional.embedding(input, weight);
    }
}
