using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using TorchSharp.Native;
using static TorchSharp.Native.NativeMethods;
using static TorchSharp.torch;
using static TorchSharp.torch.autograd;

namespace TorchSharp;

/// <summary>The untyped side of a custom function.</summary>
internal interface IFunction
{
    string Name { get; }
    List<Tensor> Forward(AutogradContext ctx, object[] vars);
    List<Tensor> Backward(AutogradContext ctx, List<Tensor> gradients);
}

/// <summary>
/// One call of a custom function. Its graph node holds it by a GCHandle and lets go when the node dies, with or without
/// backward; no exception crosses native frames.
/// </summary>
internal sealed unsafe class FunctionCall
{
    private static readonly NativeFunctionCallbacks* s_callbacks = Callbacks();

    private readonly IFunction _function;
    private readonly AutogradContext _context;

    private FunctionCall(IFunction function, AutogradContext context)
    {
        _function = function;
        _context = context;
    }

    /// <summary>Runs forward in a scope of its own, without gradients, and puts its outputs into the graph.</summary>
    public static List<Tensor> Apply(IFunction function, object[] vars)
    {
        nint[] results = Run(function, (object[])vars.Clone());
        return results.Select(handle => handle == 0 ? null! : new Tensor(handle)).ToList();
    }

    private static nint[] Run(IFunction function, object[] vars)
    {
        using DisposeScope scope = NewDisposeScope();
        var context = new AutogradContext(vars);
        List<Tensor> outputs;
        using (no_grad())
        {
            // The array is forward's to change; the context keeps its own.
            outputs = function.Forward(context, (object[])vars.Clone());
        }
        nint[] results = Insert(function, context, Handles(vars.OfType<Tensor>()), Handles(outputs));
        context.ForgetForward();
        return results;
    }

    private static nint[] Insert(IFunction function, AutogradContext context, nint[] inputs, nint[] outputs)
    {
        nint[] saved = Handles(context.ToSave);
        nint[] fixedOutputs = Handles(context.NonDifferentiable);
        nint[] dirty = Handles(context.Dirty);
        byte[] name = Encoding.UTF8.GetBytes(function.Name + '\0');
        var results = new nint[outputs.Length];
        fixed (nint* input = inputs, output = outputs, save = saved, constant = fixedOutputs, changed = dirty, result = results)
        fixed (byte* text = name)
        {
            var call = new NativeFunctionCall
            {
                Name = text,
                State = GCHandle.ToIntPtr(GCHandle.Alloc(new FunctionCall(function, context))),
                Callbacks = s_callbacks,
                Inputs = input,
                Outputs = output,
                Saved = save,
                NonDifferentiable = constant,
                Dirty = changed,
                InputCount = inputs.Length,
                OutputCount = outputs.Length,
                SavedCount = saved.Length,
                NonDifferentiableCount = fixedOutputs.Length,
                DirtyCount = dirty.Length,
                MaterializeGradients = context.MaterializeGrads ? 1 : 0,
            };
            TorchError.ThrowIfFailed(tt_function_apply(&call, result));
        }
        return results;
    }

    private static NativeFunctionCallbacks* Callbacks()
    {
        var callbacks = (NativeFunctionCallbacks*)NativeMemory.Alloc((nuint)sizeof(NativeFunctionCallbacks));
        *callbacks = new NativeFunctionCallbacks { Backward = &Backward, Release = &Release, ReleaseError = &ReleaseError };
        return callbacks;
    }

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    private static long Backward(nint state, nint node, nint* gradients, int outputCount, nint* results, int inputCount)
    {
        try
        {
            using DisposeScope scope = NewDisposeScope();
            var given = new List<Tensor>(outputCount);
            for (int i = 0; i < outputCount; i++)
            {
                given.Add(gradients[i] == 0 ? null! : new Tensor(gradients[i]));
            }
            var call = (FunctionCall)GCHandle.FromIntPtr(state).Target!;
            call.WriteGradients(node, given, new Span<nint>(results, inputCount));
            return 0;
        }
        catch (Exception e)
        {
            // libtorch's frames lie between here and the caller of backward: the exception travels as a handle.
            return GCHandle.ToIntPtr(GCHandle.Alloc(e));
        }
    }

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    private static void Release(nint state) => GCHandle.FromIntPtr(state).Free();

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    private static void ReleaseError(long error) => GCHandle.FromIntPtr((nint)error).Free();

    private void WriteGradients(nint node, List<Tensor> gradients, Span<nint> results)
    {
        List<Tensor> computed;
        _context.Node = node;
        try
        {
            computed = _function.Backward(_context, gradients);
        }
        finally
        {
            _context.Node = 0;
        }
        RequireOneForEachArgument(computed);
        int next = 0;
        for (int i = 0; i < _context.ArgumentCount; i++)
        {
            Tensor? gradient = i < computed.Count ? computed[i] : null;
            if (_context.IsTensor(i))
            {
                results[next++] = gradient is null ? 0 : tt_tensor_alias(gradient.Handle);
            }
            else if (gradient is not null)
            {
                throw new InvalidOperationException(
                    $"{_function.Name}.backward returned a gradient for argument {i}, which is no tensor; return null there");
            }
        }
    }

    // More than the arguments is fine as long as the rest is null.
    private void RequireOneForEachArgument(List<Tensor> computed)
    {
        int expected = _context.ArgumentCount;
        if (computed.Count < expected || computed.Skip(expected).Any(extra => extra is not null))
        {
            throw new InvalidOperationException(
                $"{_function.Name}.backward returned {computed.Count} gradients for {expected} arguments");
        }
    }
}
