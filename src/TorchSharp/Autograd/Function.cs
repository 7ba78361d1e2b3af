// Source-compatible with code that says List<Tensor> as well as List<Tensor?>.
#nullable disable annotations

namespace TorchSharp;

public static partial class torch
{
    public static partial class autograd
    {
        /// <summary>
        /// A function with its own derivative. <c>forward</c> runs without gradients; it and <c>backward</c> each run in a
        /// <see cref="DisposeScope"/> of their own that ends with them: what they return or save is kept, the rest disposed.
        /// One instance serves all calls, so state belongs in the <see cref="AutogradContext"/>.
        /// </summary>
        public abstract class Function<T> where T : Function<T>, new()
        {
            private protected static readonly T Instance = new();

            /// <summary>Stands in the messages of errors.</summary>
            public abstract string Name { get; }
        }

        public abstract class SingleTensorFunction<T> : Function<T>, IFunction where T : SingleTensorFunction<T>, new()
        {
            public static Tensor apply(params object[] vars) => FunctionCall.Apply(Instance, vars)[0];

            public abstract Tensor forward(AutogradContext ctx, params object[] vars);

            /// <summary>One entry for each argument of forward, null where there is no gradient.</summary>
            public abstract List<Tensor> backward(AutogradContext ctx, Tensor grad_output);

            List<Tensor> IFunction.Forward(AutogradContext ctx, object[] vars) => [forward(ctx, vars)];

            List<Tensor> IFunction.Backward(AutogradContext ctx, List<Tensor> gradients) => backward(ctx, gradients[0]);
        }

        public abstract class MultiTensorFunction<T> : Function<T>, IFunction where T : MultiTensorFunction<T>, new()
        {
            public static List<Tensor> apply(params object[] vars) => FunctionCall.Apply(Instance, vars);

            public abstract List<Tensor> forward(AutogradContext ctx, params object[] vars);

            /// <summary>One entry for each argument of forward, null where there is no gradient.</summary>
            public abstract List<Tensor> backward(AutogradContext ctx, List<Tensor> grad_outputs);

            List<Tensor> IFunction.Forward(AutogradContext ctx, object[] vars) => forward(ctx, vars);

            List<Tensor> IFunction.Backward(AutogradContext ctx, List<Tensor> gradients) => backward(ctx, gradients);
        }
    }
}
