using TorchSharp.Modules;

namespace TorchSharp;

public static partial class torch
{
    public static partial class optim
    {
        /// <summary>What a learning-rate schedule sets.</summary>
        public interface ILearningRateController
        {
            double LearningRate { get; set; }
            double InitialLearningRate { get; set; }
        }

        /// <summary>Changes parameters by their gradients. All parameters form one group.</summary>
        public abstract class Optimizer : IDisposable, ILearningRateController
        {
            private readonly Parameter[] _parameters;

            private protected Optimizer(IEnumerable<Parameter> parameters, double lr)
            {
                _parameters = [.. parameters];
                LearningRate = InitialLearningRate = lr;
            }

            public double LearningRate { get; set; }
            public double InitialLearningRate { get; set; }

            public virtual IEnumerable<ILearningRateController> ParamGroups => [this];

            public virtual IEnumerable<Parameter> parameters() => _parameters;

            public virtual void zero_grad()
            {
                foreach (Parameter parameter in _parameters)
                {
                    parameter.grad = null;
                }
            }

            /// <summary>One update of every parameter that has a gradient; returns the closure's loss.</summary>
            public Tensor? step(Func<Tensor>? closure = null)
            {
                Tensor? loss = closure?.Invoke();
                using (no_grad())
                {
                    for (int i = 0; i < _parameters.Length; i++)
                    {
                        using DisposeScope scope = NewDisposeScope();
                        if (_parameters[i].grad is { } gradient)
                        {
                            Update(i, _parameters[i], gradient);
                        }
                    }
                }
                return loss;
            }

            public void Dispose()
            {
                Dispose(true);
                GC.SuppressFinalize(this);
            }

            private protected int Count => _parameters.Length;

            /// <summary>Runs without gradients in a scope of its own.</summary>
            private protected abstract void Update(int index, Parameter parameter, Tensor gradient);

            protected abstract void Dispose(bool disposing);
        }
    }
}
