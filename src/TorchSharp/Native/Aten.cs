using System.Collections.Concurrent;
using static TorchSharp.torch;

namespace TorchSharp.Native;

/// <summary>
/// Calls operators of libtorch by name: "matmul", or "add.Tensor" with an overload. Arguments stand in the order of the
/// operator's schema; those left out take its defaults. One transition to native code a call.
/// </summary>
internal static unsafe class Aten
{
    private static readonly ConcurrentDictionary<string, nint> s_operators = new(StringComparer.Ordinal);

    /// <summary>Whether the loaded libtorch has the operator.</summary>
    public static bool Has(string op) => Find(op) != 0;

    public static Tensor Call(string op, params ReadOnlySpan<Value> arguments)
    {
        NativeValue output;
        Invoke(op, arguments, &output, 1);
        return new Tensor((nint)output.Bits);
    }

    public static (Tensor, Tensor) Pair(string op, params ReadOnlySpan<Value> arguments)
    {
        NativeValue* outputs = stackalloc NativeValue[2];
        Invoke(op, arguments, outputs, 2);
        return (new Tensor((nint)outputs[0].Bits), new Tensor((nint)outputs[1].Bits));
    }

    public static Tensor[] List(string op, params ReadOnlySpan<Value> arguments)
    {
        NativeValue output;
        Invoke(op, arguments, &output, 1);
        var handles = (nint*)output.Bits;
        var tensors = new Tensor[output.Count];
        for (int i = 0; i < tensors.Length; i++)
        {
            tensors[i] = new Tensor(handles[i]);
        }
        NativeMethods.tt_tensors_free(handles);
        return tensors;
    }

    public static Scalar Number(string op, params ReadOnlySpan<Value> arguments)
    {
        NativeValue output;
        Invoke(op, arguments, &output, 1);
        return new Scalar(output.Kind, output.Bits);
    }

    public static bool Test(string op, params ReadOnlySpan<Value> arguments) => Number(op, arguments).Bits != 0;

    /// <summary>Runs an operator for what it changes, such as a list or an out argument.</summary>
    public static void Run(string op, params ReadOnlySpan<Value> arguments) => Invoke(op, arguments, null, 0);

    /// <summary>Runs an operator that changes its first argument, and returns that argument.</summary>
    public static Tensor InPlace(string op, params ReadOnlySpan<Value> arguments)
    {
        Invoke(op, arguments, null, 0);
        return (Tensor)arguments[0].Reference!;
    }

    private static void Invoke(string op, ReadOnlySpan<Value> arguments, NativeValue* outputs, int outputCount)
    {
        nint found = Find(op);
        if (found == 0)
        {
            throw new TorchException(
                $"{op}: this libtorch ({torch.loaded_version}) has no such operator; it needs a newer one");
        }
        NativeValue* values = stackalloc NativeValue[arguments.Length];
        int words = ListWords(arguments);
        Span<long> lists = words <= 64 ? stackalloc long[64] : new long[words];
        fixed (long* first = lists)
        {
            long* next = first;
            for (int i = 0; i < arguments.Length; i++)
            {
                next = Write(arguments[i], values + i, next);
            }
            TorchError.ThrowIfFailed(NativeMethods.tt_call(found, values, arguments.Length, outputs, outputCount));
        }
    }

    private static nint Find(string op)
    {
        if (s_operators.TryGetValue(op, out nint known))
        {
            return known;
        }
        int dot = op.IndexOf('.', StringComparison.Ordinal);
        string name = "aten::" + (dot < 0 ? op : op[..dot]);
        TorchError.ThrowIfFailed(NativeMethods.tt_operator_find(name, dot < 0 ? "" : op[(dot + 1)..], out nint found));
        return s_operators.GetOrAdd(op, found);
    }

    // Lists are copied into one block of 8-byte words that lives for the call.
    private static int ListWords(ReadOnlySpan<Value> arguments)
    {
        int words = 0;
        foreach (ref readonly Value argument in arguments)
        {
            words += argument.Reference switch
            {
                long[] ints => ints.Length,
                IReadOnlyList<Tensor?> tensors => tensors.Count,
                byte[] text => text.Length / sizeof(long) + 1,
                _ => 0,
            };
        }
        return words;
    }

    private static long* Write(in Value argument, NativeValue* value, long* list)
    {
        *value = new NativeValue { Kind = argument.Kind, Bits = argument.Bits };
        switch (argument.Reference)
        {
            case Tensor tensor:
                value->Bits = tensor.Handle;
                return list;
            case long[] ints:
                ints.CopyTo(new Span<long>(list, ints.Length));
                value->Count = ints.Length;
                value->Bits = (nint)list;
                return list + ints.Length;
            case IReadOnlyList<Tensor?> tensors:
                for (int i = 0; i < tensors.Count; i++)
                {
                    list[i] = tensors[i]?.Handle ?? 0;
                }
                value->Count = tensors.Count;
                value->Bits = (nint)list;
                return list + tensors.Count;
            case byte[] text:
                text.CopyTo(new Span<byte>(list, text.Length));
                value->Count = text.Length;
                value->Bits = (nint)list;
                return list + text.Length / sizeof(long) + 1;
            default:
                return list;
        }
    }
}
