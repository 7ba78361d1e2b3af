namespace TorchSharp.Modules;

/// <summary>A tensor that is trained. It takes the given tensor's place: that object is empty afterwards.</summary>
public class Parameter : torch.Tensor
{
    public Parameter(torch.Tensor data, bool requires_grad = true) : this(data, data.OwningScope, requires_grad)
    {
    }

    // The scope is read before the handle leaves its owner.
    private Parameter(torch.Tensor data, DisposeScope? scope, bool requires_grad)
        : base(Take(data.requires_grad_(requires_grad)), scope)
    {
    }
}
