using System.Buffers.Binary;
using System.Text;

namespace Trainer.Worker.Tests.Reports;

/// <summary>Reads TensorBoard's event files: TFRecord framing with a CRC of its own, bit by bit by the definition, and protobuf.</summary>
internal static class EventFile
{
    /// <summary>
    /// The scalars of a folder, as TensorBoard shows them: its files in order, and a file that says that a session starts at a step
    /// drops what the ones before it told from that step on.
    /// </summary>
    public static List<(string Tag, long Step, float Value)> Scalars(string folder)
    {
        List<(string Tag, long Step, float Value)> scalars = [];
        foreach (Dictionary<int, object> e in Directory.GetFiles(folder, "events.out.tfevents.*").Order(StringComparer.Ordinal).SelectMany(Decode))
        {
            long step = e.TryGetValue(2, out object? told) ? (long)(ulong)told : 0;
            if (e.TryGetValue(7, out object? session) && Fields((byte[])session).GetValueOrDefault(1) is 1UL)
            {
                scalars.RemoveAll(scalar => scalar.Step >= step);
            }
            else if (e.TryGetValue(5, out object? summary) && Fields((byte[])Fields((byte[])summary)[1]) is var value && value.TryGetValue(2, out object? number))
            {
                scalars.Add((Encoding.UTF8.GetString((byte[])value[1]), step, (float)number));
            }
        }
        return scalars;
    }

    /// <summary>Every event of the file, as its protobuf fields.</summary>
    public static List<Dictionary<int, object>> Decode(string path)
    {
        using FileStream file = new(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        byte[] bytes = new byte[file.Length];
        file.ReadExactly(bytes);
        List<Dictionary<int, object>> events = [];
        for (int at = 0; at < bytes.Length;)
        {
            int length = (int)BinaryPrimitives.ReadUInt64LittleEndian(bytes.AsSpan(at));
            Assert.Equal(MaskedCrc(bytes.AsSpan(at, 8)), BinaryPrimitives.ReadUInt32LittleEndian(bytes.AsSpan(at + 8)));
            byte[] payload = bytes[(at + 12)..(at + 12 + length)];
            Assert.Equal(MaskedCrc(payload), BinaryPrimitives.ReadUInt32LittleEndian(bytes.AsSpan(at + 12 + length)));
            events.Add(Fields(payload));
            at += length + 16;
        }

        return events;
    }

    private static uint MaskedCrc(ReadOnlySpan<byte> bytes)
    {
        uint crc = 0xffffffff;
        foreach (byte b in bytes)
        {
            crc ^= b;
            for (int bit = 0; bit < 8; bit++)
            {
                crc = (crc & 1) != 0 ? crc >> 1 ^ 0x82f63b78 : crc >> 1;
            }
        }

        crc = ~crc;
        return (crc >> 15 | crc << 17) + 0xa282ead8;
    }

    /// <summary>One message whose fields come once each.</summary>
    public static Dictionary<int, object> Fields(byte[] bytes)
    {
        Dictionary<int, object> fields = [];
        int at = 0;
        ulong Varint()
        {
            ulong value = 0;
            int shift = 0;
            byte b;
            do
            {
                b = bytes[at++];
                value |= (ulong)(b & 0x7f) << shift;
                shift += 7;
            }
            while (b >= 0x80);
            return value;
        }

        byte[] Take(int count)
        {
            at += count;
            return bytes[(at - count)..at];
        }

        while (at < bytes.Length)
        {
            ulong key = Varint();
            fields.Add((int)(key >> 3), (key & 7) switch
            {
                0 => Varint(),
                1 => BinaryPrimitives.ReadDoubleLittleEndian(Take(8)),
                2 => Take((int)Varint()),
                5 => BinaryPrimitives.ReadSingleLittleEndian(Take(4)),
                _ => throw new InvalidDataException($"wire type {key & 7}"),
            });
        }

        return fields;
    }
}
