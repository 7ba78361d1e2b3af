using TorchSharp.Native;
using static TorchSharp.Native.NativeMethods;

// Source-compatible with code that says List<Tensor> as well as List<Tensor?>.
#nullable disable annotations

namespace TorchSharp;

public static partial class torch
{
    public static partial class autograd
    {
        /// <summary>What one call of a custom function hands from forward to backward.</summary>
        public sealed unsafe class AutogradContext
        {
            private readonly object[] _arguments;
            private readonly Dictionary<string, object> _data = [];

            internal AutogradContext(object[] arguments) => _arguments = arguments;

            internal List<Tensor> ToSave { get; private set; } = [];
            internal List<Tensor> Dirty { get; private set; } = [];
            internal List<Tensor> NonDifferentiable { get; private set; } = [];

            /// <summary>The graph node while its backward runs, otherwise 0.</summary>
            internal nint Node { get; set; }

            public bool MaterializeGrads { get; private set; } = true;

            /// <summary>Keeps tensors until backward has run or the graph is dropped; null entries are allowed.</summary>
            public void save_for_backward(List<Tensor> tensors) => ToSave = tensors;

            /// <summary>In backward: the saved tensors, owned by the scope of this backward call. An error if one was changed in
            /// place since, or if backward has run before without retain_graph.</summary>
            public List<Tensor> get_saved_variables()
            {
                if (Node == 0)
                {
                    throw new InvalidOperationException("get_saved_variables is for backward; forward has its arguments");
                }
                var handles = new nint[tt_node_saved_count(Node)];
                fixed (nint* first = handles)
                {
                    TorchError.ThrowIfFailed(tt_node_saved(Node, first));
                }
                return handles.Select(handle => handle == 0 ? null : new Tensor(handle)).ToList();
            }

            /// <summary>Keeps anything but tensors: one of those would be disposed with forward's scope.</summary>
            public void save_data(string key, object value)
            {
                if (value is Tensor)
                {
                    throw new ArgumentException("tensors are saved with save_for_backward", nameof(value));
                }
                _data[key] = value;
            }

            /// <summary>Null for a key that was not saved.</summary>
            public object get_data(string key) => _data.GetValueOrDefault(key);

            public void mark_dirty(List<Tensor> tensors) => Dirty = [.. tensors];

            public void mark_non_differentiable(List<Tensor> tensors) => NonDifferentiable = [.. tensors];

            /// <summary>False: an output without a gradient reaches backward as null, not as zeros.</summary>
            public void set_materialize_grads(bool value) => MaterializeGrads = value;

            internal void ForgetForward()
            {
                ToSave = [];
                Dirty = [];
                NonDifferentiable = [];
                for (int i = 0; i < _arguments.Length; i++)
                {
                    // Only whether an argument was a tensor matters in backward; the tensor must not be kept alive.
                    _arguments[i] = _arguments[i] is Tensor ? s_tensor : null;
                }
            }

            internal bool IsTensor(int argument) => _arguments[argument] is Tensor || _arguments[argument] == s_tensor;

            internal int ArgumentCount => _arguments.Length;

            internal bool NeedsGradient(int argument)
            {
                if (Node == 0)
                {
                    return _arguments[argument] is Tensor { requires_grad: true };
                }
                return IsTensor(argument) && tt_node_needs_input_grad(Node, Enumerable.Range(0, argument).Count(IsTensor)) != 0;
            }

            private static readonly object s_tensor = new();
        }
    }
}
