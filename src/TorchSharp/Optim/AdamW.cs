using TorchSharp.Modules;
using static TorchSharp.torch;

namespace TorchSharp
{
    public static partial class torch
    {
        public static partial class optim
        {
            public static Modules.AdamW AdamW(IEnumerable<Parameter> parameters, double lr = 1e-3, double beta1 = 0.9,
                double beta2 = 0.999, double eps = 1e-8, double weight_decay = 0) =>
                new(parameters, lr, beta1, beta2, eps, weight_decay);
        }
    }
}

namespace TorchSharp.Modules
{
    /// <summary>Adam with decoupled weight decay: the decay is lr * weight_decay * parameter, before the Adam step.</summary>
    public sealed class AdamW : optim.Optimizer
    {
        private readonly Moments?[] _moments;
        private readonly double _beta1, _beta2, _eps, _weightDecay;

        public AdamW(IEnumerable<Parameter> parameters, double lr = 1e-3, double beta1 = 0.9, double beta2 = 0.999,
            double eps = 1e-8, double weight_decay = 0) : base(parameters, lr)
        {
            _moments = new Moments?[Count];
            (_beta1, _beta2, _eps, _weightDecay) = (beta1, beta2, eps, weight_decay);
        }

        private protected override void Update(int index, Parameter parameter, Tensor gradient)
        {
            Moments moments = _moments[index] ??= new Moments(parameter);
            moments.Step++;
            parameter.mul_(1 - LearningRate * _weightDecay);
            moments.First.lerp_(gradient, 1 - _beta1);
            moments.Second.mul_(_beta2).addcmul_(gradient, gradient, 1 - _beta2);
            Tensor denominator = moments.Second.sqrt().div_(Math.Sqrt(1 - Math.Pow(_beta2, moments.Step))).add_(_eps);
            parameter.addcdiv_(moments.First, denominator, -LearningRate / (1 - Math.Pow(_beta1, moments.Step)));
        }

        protected override void Dispose(bool disposing)
        {
            foreach (Moments? moments in _moments)
            {
                moments?.First.Dispose();
                moments?.Second.Dispose();
            }
        }

        private sealed class Moments(Parameter parameter)
        {
            public long Step { get; set; }
            public Tensor First { get; } = zeros_like(parameter).DetachFromDisposeScope();
            public Tensor Second { get; } = zeros_like(parameter).DetachFromDisposeScope();
        }
    }
}
