using TorchSharp.Native;
using static TorchSharp.Native.NativeMethods;

namespace TorchSharp;

public static partial class torch
{
    public static unsafe partial class autograd
    {
        /// <summary>Gradients of the outputs' sum with respect to the inputs, in their order; nothing is accumulated.</summary>
        /// <param name="outputs">The differentiated tensors.</param>
        /// <param name="inputs">With respect to these.</param>
        /// <param name="grad_outputs">One for each output; null only for scalars.</param>
        /// <param name="retain_graph">Keeps the graph for another pass.</param>
        /// <param name="create_graph">Makes the gradients differentiable.</param>
        /// <param name="allow_unused">Gives null, not an error, for an input that the outputs do not depend on.</param>
        public static IList<Tensor> grad(IList<Tensor> outputs, IList<Tensor> inputs, IList<Tensor>? grad_outputs = null,
            bool retain_graph = false, bool create_graph = false, bool allow_unused = false)
        {
            nint[] outputHandles = Handles(outputs), inputHandles = Handles(inputs), gradients = Handles(grad_outputs);
            var results = new nint[inputHandles.Length];
            fixed (nint* first = outputHandles, input = inputHandles, gradient = gradients, result = results)
            {
                TorchError.ThrowIfFailed(tt_grad(first, outputHandles.Length, input, inputHandles.Length, gradient,
                    gradients.Length, retain_graph || create_graph ? 1 : 0, create_graph ? 1 : 0, allow_unused ? 1 : 0, result));
            }
            return results.Select(handle => handle == 0 ? null! : new Tensor(handle)).ToList();
        }

        /// <summary>Accumulates gradients into the leaves, or only into <paramref name="inputs"/>.</summary>
        /// <param name="tensors">The roots.</param>
        /// <param name="grad_tensors">One for each root; null only for scalars.</param>
        /// <param name="retain_graph">Null: as <paramref name="create_graph"/>.</param>
        /// <param name="create_graph">Makes the gradients differentiable.</param>
        /// <param name="inputs">Null: every leaf.</param>
        public static void backward(IList<Tensor> tensors, IList<Tensor>? grad_tensors = null, bool? retain_graph = null,
            bool create_graph = false, IList<Tensor>? inputs = null)
        {
            nint[] roots = Handles(tensors), gradients = Handles(grad_tensors), leaves = Handles(inputs);
            int retain = retain_graph is { } chosen ? chosen ? 1 : 0 : -1;
            fixed (nint* root = roots, gradient = gradients, leaf = leaves)
            {
                TorchError.ThrowIfFailed(tt_backward(root, roots.Length, gradient, gradients.Length, retain,
                    create_graph ? 1 : 0, leaf, leaves.Length));
            }
        }

        public static void backward(Tensor tensor, IList<Tensor>? grad_tensors = null, bool? retain_graph = null,
            bool create_graph = false, IList<Tensor>? inputs = null) =>
            backward([tensor], grad_tensors, retain_graph, create_graph, inputs);

        public static void backward(Tensor tensor, Tensor grad_tensor, bool? retain_graph = null, bool create_graph = false,
            IList<Tensor>? inputs = null) =>
            backward([tensor], [grad_tensor], retain_graph, create_graph, inputs);

        internal static nint[] Handles(IEnumerable<Tensor?>? tensors) =>
            tensors?.Select(tensor => tensor?.Handle ?? 0).ToArray() ?? [];
    }
}
