using TorchSharp.Native;
using static TorchSharp.Native.NativeMethods;

namespace TorchSharp;

public static partial class torch
{
    public partial class Tensor
    {
        public bool is_leaf => tt_tensor_is_leaf(Handle) != 0;

        public bool requires_grad
        {
            get => tt_tensor_requires_grad(Handle) != 0;
            set => Check(tt_tensor_set_requires_grad(Handle, value ? 1 : 0));
        }

        public Tensor requires_grad_(bool requires_grad = true)
        {
            this.requires_grad = requires_grad;
            return this;
        }

        public Tensor with_requires_grad(bool requires_grad = true) => requires_grad_(requires_grad);

        /// <summary>A new handle of the gradient at each call; null without one.</summary>
        public Tensor? grad
        {
            get
            {
                Check(tt_tensor_grad(Handle, out nint grad));
                return FromOptional(grad);
            }
            set => Check(tt_tensor_set_grad(Handle, value?.Handle ?? 0));
        }

        public void retain_grad() => Check(tt_tensor_retain_grad(Handle));

        public void backward() => autograd.backward([this]);

        public void backward(IList<Tensor>? grad_tensors = null, bool retain_graph = false, bool create_graph = false,
            IList<Tensor>? inputs = null) =>
            autograd.backward([this], grad_tensors, retain_graph, create_graph, inputs);

        public Tensor detach() => Aten.Call("detach", this);
        public Tensor detach_() => Aten.InPlace("detach_", this);
    }
}
