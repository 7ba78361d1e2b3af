namespace TorchSharp.Native;

/// <summary>TT_VALUE_*: append only.</summary>
internal enum ValueKind
{
    None = 0,
    Default = 1,
    Tensor = 2,
    Int = 3,
    Double = 4,
    Bool = 5,
    Ints = 6,
    Tensors = 7,
    Text = 8,
    Device = 9,
    Generator = 10,
}

/// <summary>One argument of an operator. Null stands for None.</summary>
internal readonly struct Value
{
    private Value(ValueKind kind, object? reference, long bits)
    {
        Kind = kind;
        Reference = reference;
        Bits = bits;
    }

    public ValueKind Kind { get; }

    /// <summary>Tensor, long[], IReadOnlyList of Tensor, or UTF-8 bytes, by <see cref="Kind"/>.</summary>
    public object? Reference { get; }

    /// <summary>The integer, or the bits of the double.</summary>
    public long Bits { get; }

    public static Value None => default;

    /// <summary>Leaves the argument to the operator's own default.</summary>
    public static Value Default => new(ValueKind.Default, null, 0);

    public static Value Tensors(IReadOnlyList<torch.Tensor?> tensors) => new(ValueKind.Tensors, tensors, 0);

    public static Value From(in Scalar scalar) => new(scalar.Kind, null, scalar.Bits);

    public static implicit operator Value(torch.Tensor? tensor) => tensor is null ? None : new(ValueKind.Tensor, tensor, 0);
    public static implicit operator Value(long value) => new(ValueKind.Int, null, value);
    public static implicit operator Value(long? value) => value is { } some ? some : None;
    public static implicit operator Value(double value) => new(ValueKind.Double, null, BitConverter.DoubleToInt64Bits(value));
    public static implicit operator Value(double? value) => value is { } some ? some : None;
    public static implicit operator Value(bool value) => new(ValueKind.Bool, null, value ? 1 : 0);
    public static implicit operator Value(Scalar value) => From(value);
    public static implicit operator Value(Scalar? value) => value is { } some ? From(some) : None;
    public static implicit operator Value(torch.ScalarType value) => new(ValueKind.Int, null, (long)value);
    public static implicit operator Value(torch.ScalarType? value) => value is { } some ? some : None;
    public static implicit operator Value(torch.Device? value) => value is null ? None : new(ValueKind.Device, null, value.Packed);
    public static implicit operator Value(torch.Generator? value) => value is null ? None : new(ValueKind.Generator, null, value.Handle);
    public static implicit operator Value(long[]? value) => value is null ? None : new(ValueKind.Ints, value, 0);
    public static implicit operator Value(torch.Tensor[] value) => new(ValueKind.Tensors, value, 0);
    public static implicit operator Value(string? value) =>
        value is null ? None : new(ValueKind.Text, System.Text.Encoding.UTF8.GetBytes(value), 0);
}
