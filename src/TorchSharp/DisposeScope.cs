namespace TorchSharp;

/// <summary>
/// Owns the tensors that its thread makes while it is the innermost scope, and disposes them when it ends. Tensors have no
/// finalizer: one that no scope owns lives until it is disposed.
/// </summary>
/// <remarks>Scopes nest and belong to the thread that made them; a scope is not for use by two threads at a time.</remarks>
public sealed class DisposeScope : IDisposable
{
    [ThreadStatic] private static DisposeScope? s_innermost;

    private readonly List<torch.Tensor> _tensors = [];
    private bool _disposed;

    internal DisposeScope()
    {
        OuterScope = Innermost;
        s_innermost = this;
    }

    public DisposeScope? OuterScope { get; private set; }

    public int DisposablesCount => _tensors.Count;

    public IReadOnlyList<IDisposable> DisposablesView => _tensors;

    /// <summary>The scope that owns what this thread makes now.</summary>
    internal static DisposeScope? Innermost
    {
        get
        {
            // A scope may have been disposed by another thread, or out of order.
            while (s_innermost is { _disposed: true } gone)
            {
                s_innermost = gone.OuterScope;
            }
            return s_innermost;
        }
    }

    public bool Contains(torch.Tensor tensor) => tensor.OwningScope == this;

    /// <summary>Takes over a tensor, also from another scope.</summary>
    public T Attach<T>(T tensor) where T : torch.Tensor
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        tensor.OwningScope?.Remove(tensor);
        Add(tensor);
        return tensor;
    }

    /// <summary>From now on nobody owns the tensor: the caller disposes it.</summary>
    public T Detach<T>(T tensor) where T : torch.Tensor
    {
        if (tensor.OwningScope == this)
        {
            Remove(tensor);
        }
        return tensor;
    }

    public void Detach(IEnumerable<torch.Tensor> tensors)
    {
        foreach (torch.Tensor tensor in tensors)
        {
            Detach(tensor);
        }
    }

    /// <summary>Moves a tensor of this scope to the scope around it; without one the caller owns it.</summary>
    public T MoveToOuter<T>(T tensor) where T : torch.Tensor => MoveToOther(OuterScope, tensor);

    public (T1 first, T2 second) MoveToOuter<T1, T2>(T1 first, T2 second) where T1 : torch.Tensor where T2 : torch.Tensor =>
        (MoveToOuter(first), MoveToOuter(second));

    public void MoveToOuter(IEnumerable<torch.Tensor> tensors)
    {
        foreach (torch.Tensor tensor in tensors)
        {
            MoveToOuter(tensor);
        }
    }

    public T MoveToOther<T>(DisposeScope? scope, T tensor) where T : torch.Tensor
    {
        if (tensor.OwningScope == this)
        {
            Remove(tensor);
            scope?.Add(tensor);
        }
        return tensor;
    }

    public void DisposeEverything()
    {
        // From the newest: an element leaves the list when it is disposed.
        while (_tensors.Count > 0)
        {
            _tensors[^1].Dispose();
        }
    }

    public T DisposeEverythingBut<T>(T keep) where T : torch.Tensor
    {
        bool owned = keep.OwningScope == this;
        Detach(keep);
        DisposeEverything();
        if (owned)
        {
            Add(keep);
        }
        return keep;
    }

    public void Dispose()
    {
        if (_disposed)
        {
            return;
        }
        DisposeEverything();
        _disposed = true;
        _ = Innermost;
    }

    internal void Add(torch.Tensor tensor)
    {
        tensor.OwningScope = this;
        tensor.ScopeSlot = _tensors.Count;
        _tensors.Add(tensor);
    }

    internal void Remove(torch.Tensor tensor)
    {
        // The last element takes the free slot.
        torch.Tensor last = _tensors[^1];
        _tensors[tensor.ScopeSlot] = last;
        last.ScopeSlot = tensor.ScopeSlot;
        _tensors.RemoveAt(_tensors.Count - 1);
        tensor.OwningScope = null;
    }
}

public static partial class torch
{
    public static DisposeScope NewDisposeScope() => new();

    public static DisposeScope? CurrentDisposeScope => DisposeScope.Innermost;

    /// <summary>Runs the expression in a scope of its own and keeps only its result.</summary>
    public static Tensor WrappedTensorDisposeScope(Func<Tensor> expr)
    {
        using DisposeScope scope = NewDisposeScope();
        return expr().MoveToOuterDisposeScope();
    }
}
