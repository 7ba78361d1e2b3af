namespace TorchSharp;

public static partial class torch
{
    public static partial class nn
    {
        /// <summary>Fills tensors in place, outside of any graph.</summary>
        public static class init
        {
            public enum FanInOut
            {
                FanIn,
                FanOut,
            }

            public static Tensor zeros_(Tensor tensor) => Filled(tensor, t => t.zero_());
            public static Tensor ones_(Tensor tensor) => Filled(tensor, t => t.fill_(1));
            public static Tensor constant_(Tensor tensor, Scalar val) => Filled(tensor, t => t.fill_(val));

            public static Tensor uniform_(Tensor tensor, double low = 0, double high = 1, Generator? generator = null) =>
                Filled(tensor, t => t.uniform_(low, high, generator));

            public static Tensor normal_(Tensor tensor, double mean = 0, double std = 1, Generator? generator = null) =>
                Filled(tensor, t => t.normal_(mean, std, generator));

            /// <summary>Uniform within gain * sqrt(3 / fan), gain = sqrt(2 / (1 + a^2)) for a leaky ReLU of slope a.</summary>
            public static Tensor kaiming_uniform_(Tensor tensor, double a = 0, FanInOut mode = FanInOut.FanIn, Generator? generator = null)
            {
                (long fanIn, long fanOut) = CalculateFanInAndFanOut(tensor);
                double bound = Math.Sqrt(2 / (1 + a * a)) * Math.Sqrt(3.0 / (mode == FanInOut.FanIn ? fanIn : fanOut));
                return uniform_(tensor, -bound, bound, generator);
            }

            public static (long fanIn, long fanOut) CalculateFanInAndFanOut(Tensor tensor)
            {
                if (tensor.ndim < 2)
                {
                    throw new ArgumentException($"fan in and fan out need two dimensions: {tensor}");
                }
                long field = tensor.shape.Skip(2).Aggregate(1L, (product, size) => product * size);
                return (tensor.size(1) * field, tensor.size(0) * field);
            }

            private static Tensor Filled(Tensor tensor, Action<Tensor> fill)
            {
                using (no_grad())
                {
                    fill(tensor);
                }
                return tensor;
            }
        }
    }
}
