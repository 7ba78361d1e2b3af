using TorchSharp.Native;

namespace TorchSharp;

public static partial class torch
{
    public partial class Tensor
    {
        public Tensor normal_(double mean = 0.0, double std = 1.0, Generator? generator = null) =>
            Aten.InPlace("normal_", this, mean, std, generator);
        public Tensor uniform_(double from, double to, Generator? generator = null) =>
            Aten.InPlace("uniform_", this, from, to, generator);
        public Tensor random_(long from, long to, Generator? generator = null) =>
            Aten.InPlace("random_.from", this, from, to, generator);
        /// <summary>Ones with probability p.</summary>
        public Tensor bernoulli_(double p = 0.5, Generator? generator = null) =>
            Aten.InPlace("bernoulli_.float", this, p, generator);
        /// <summary>Ones with the probabilities that this tensor holds.</summary>
        public Tensor bernoulli(Generator? generator = null) => Aten.Call("bernoulli", this, generator);
        /// <summary>Indices drawn with the weights in the last dimension.</summary>
        public Tensor multinomial(long num_samples, bool replacement = false, Generator? generator = null) =>
            Aten.Call("multinomial", this, num_samples, replacement, generator);
        public Tensor exponential_(double lambda = 1.0, Generator? generator = null) =>
            Aten.InPlace("exponential_", this, lambda, generator);
    }
}
