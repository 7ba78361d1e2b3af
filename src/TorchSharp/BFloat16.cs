using System.Globalization;

namespace TorchSharp;

/// <summary>The upper half of a float32: 8 bits of exponent, 7 of mantissa. Conversion rounds to nearest, ties to even.</summary>
public readonly record struct BFloat16
{
    private readonly ushort _bits;

    private BFloat16(ushort bits) => _bits = bits;

    public ushort Bits => _bits;

    public static BFloat16 FromBits(ushort bits) => new(bits);

    public static explicit operator BFloat16(float value)
    {
        uint bits = BitConverter.SingleToUInt32Bits(value);
        if (float.IsNaN(value))
        {
            return new((ushort)(bits >> 16 | 0x40));
        }
        return new((ushort)(bits + 0x7fff + (bits >> 16 & 1) >> 16));
    }

    public static explicit operator BFloat16(double value) => (BFloat16)(float)value;

    public static implicit operator float(BFloat16 value) => BitConverter.UInt32BitsToSingle((uint)value._bits << 16);

    public override string ToString() => ((float)this).ToString(CultureInfo.InvariantCulture);
}
