using TorchSharp.Modules;
using static TorchSharp.torch;

namespace TorchSharp
{
    public static partial class torch
    {
        public static partial class optim
        {
            public static Modules.SGD SGD(IEnumerable<Parameter> parameters, double learningRate, double momentum = 0,
                double weight_decay = 0) =>
                new(parameters, learningRate, momentum, weight_decay);
        }
    }
}

namespace TorchSharp.Modules
{
    /// <summary>Stochastic gradient descent; weight decay is added to the gradient.</summary>
    public sealed class SGD : optim.Optimizer
    {
        private readonly Tensor?[] _velocities;
        private readonly double _momentum, _weightDecay;

        public SGD(IEnumerable<Parameter> parameters, double lr, double momentum = 0, double weight_decay = 0) : base(parameters, lr)
        {
            _velocities = new Tensor?[Count];
            (_momentum, _weightDecay) = (momentum, weight_decay);
        }

        private protected override void Update(int index, Parameter parameter, Tensor gradient)
        {
            Tensor direction = _weightDecay == 0 ? gradient : gradient.add(parameter, _weightDecay);
            if (_momentum != 0)
            {
                direction = _velocities[index] is { } velocity
                    ? velocity.mul_(_momentum).add_(direction)
                    : _velocities[index] = direction.clone().DetachFromDisposeScope();
            }
            parameter.add_(direction, -LearningRate);
        }

        protected override void Dispose(bool disposing)
        {
            foreach (Tensor? velocity in _velocities)
            {
                velocity?.Dispose();
            }
        }
    }
}
