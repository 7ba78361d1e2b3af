using System.Buffers;
using System.Buffers.Binary;
using System.Text;

namespace Trainer.Worker.Reports;

/// <summary>Encodes the protobuf wire format: each field is (number &lt;&lt; 3 | wire type) as a varint, then its value.</summary>
internal sealed class ProtobufMessage
{
    private const int Varint = 0;
    private const int Fixed64 = 1;
    private const int LengthDelimited = 2;
    private const int Fixed32 = 5;
    private readonly ArrayBufferWriter<byte> _bytes = new();

    public ReadOnlySpan<byte> Bytes => _bytes.WrittenSpan;

    public void Number(int field, long value)
    {
        WriteVarint((uint)(field << 3 | Varint));
        WriteVarint((ulong)value);
    }

    public void Double(int field, double value)
    {
        WriteVarint((uint)(field << 3 | Fixed64));
        BinaryPrimitives.WriteDoubleLittleEndian(_bytes.GetSpan(sizeof(double)), value);
        _bytes.Advance(sizeof(double));
    }

    public void Float(int field, float value)
    {
        WriteVarint((uint)(field << 3 | Fixed32));
        BinaryPrimitives.WriteSingleLittleEndian(_bytes.GetSpan(sizeof(float)), value);
        _bytes.Advance(sizeof(float));
    }

    public void Text(int field, string value) => WriteDelimited(field, Encoding.UTF8.GetBytes(value));

    public void Message(int field, Action<ProtobufMessage> content)
    {
        ProtobufMessage message = new();
        content(message);
        WriteDelimited(field, message.Bytes);
    }

    private void WriteDelimited(int field, ReadOnlySpan<byte> value)
    {
        WriteVarint((uint)(field << 3 | LengthDelimited));
        WriteVarint((uint)value.Length);
        _bytes.Write(value);
    }

    private void WriteVarint(ulong value)
    {
        while (value >= 0x80)
        {
            _bytes.Write([(byte)(value | 0x80)]);
            value >>= 7;
        }

        _bytes.Write([(byte)value]);
    }
}
