using System.Globalization;
using TorchSharp.Native;

namespace TorchSharp;

/// <summary>A number given to an operator: an integer, a floating-point number or a boolean.</summary>
public readonly struct Scalar
{
    internal Scalar(ValueKind kind, long bits)
    {
        Kind = kind;
        Bits = bits;
    }

    internal ValueKind Kind { get; }
    internal long Bits { get; }

    /// <summary>Int64, Float64 or Bool.</summary>
    public torch.ScalarType Type => Kind switch
    {
        ValueKind.Double => torch.ScalarType.Float64,
        ValueKind.Bool => torch.ScalarType.Bool,
        _ => torch.ScalarType.Int64,
    };

    public static implicit operator Scalar(byte value) => new(ValueKind.Int, value);
    public static implicit operator Scalar(sbyte value) => new(ValueKind.Int, value);
    public static implicit operator Scalar(short value) => new(ValueKind.Int, value);
    public static implicit operator Scalar(int value) => new(ValueKind.Int, value);
    public static implicit operator Scalar(long value) => new(ValueKind.Int, value);
    public static implicit operator Scalar(Half value) => (double)value;
    public static implicit operator Scalar(BFloat16 value) => (double)(float)value;
    public static implicit operator Scalar(float value) => (double)value;
    public static implicit operator Scalar(double value) => new(ValueKind.Double, BitConverter.DoubleToInt64Bits(value));
    public static implicit operator Scalar(bool value) => new(ValueKind.Bool, value ? 1 : 0);

    public double ToDouble() => Kind == ValueKind.Double ? BitConverter.Int64BitsToDouble(Bits) : Bits;

    public float ToSingle() => (float)ToDouble();

    /// <summary>Fractions are cut off.</summary>
    public long ToInt64() => Kind == ValueKind.Double ? checked((long)ToDouble()) : Bits;

    public int ToInt32() => checked((int)ToInt64());

    public bool ToBoolean() => Kind == ValueKind.Double ? ToDouble() != 0 : Bits != 0;

    public override string ToString() => Kind switch
    {
        ValueKind.Double => ToDouble().ToString("R", CultureInfo.InvariantCulture),
        ValueKind.Bool => Bits != 0 ? "True" : "False",
        _ => Bits.ToString(CultureInfo.InvariantCulture),
    };
}
