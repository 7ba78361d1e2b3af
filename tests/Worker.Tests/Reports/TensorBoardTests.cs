using System.Buffers.Binary;
using System.Text;
using Trainer.Worker.Reports;
using Trainer.Worker.Tests.Checkpoints;

namespace Trainer.Worker.Tests.Reports;

public sealed class TensorBoardTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    // RFC 3720, appendix B.4.
    [Fact]
    public void Crc_matches_the_published_vectors()
    {
        Assert.Equal(0xe3069283u, Crc32C.Compute("123456789"u8));
        Assert.Equal(0x8a9136aau, Crc32C.Compute(new byte[32]));
        Assert.Equal(0x62a8ab43u, Crc32C.Compute(Enumerable.Repeat((byte)0xff, 32).ToArray()));
        Assert.Equal(0x46dd794eu, Crc32C.Compute(Enumerable.Range(0, 32).Select(i => (byte)i).ToArray()));
        Assert.Equal(0u, Crc32C.Compute([]));
    }

    [Fact]
    public void Events_decode_to_what_was_written()
    {
        string path;
        using (TensorBoardWriter writer = new(_directory.File("run"), TimeProvider.System))
        {
            path = writer.FilePath;
            writer.Scalar("train/loss", 1, 2.5f);
            writer.Scalar("train/loss", 1L << 40, -0.125f);
            writer.Text("samples/1", 7, new string('x', 300) + " — süß");
        }

        List<Dictionary<int, object>> events = Decode(path);
        Assert.Equal(4, events.Count);
        Assert.Equal("brain.Event:2", Text(events[0][3]));
        Assert.All(events, e => Assert.InRange((double)e[1], 1.7e9, 1e11));

        Dictionary<int, object> value = Value(events[1]);
        Assert.Equal((1UL, "train/loss", 2.5f), (events[1][2], Text(value[1]), value[2]));
        Assert.Equal((1UL << 40, -0.125f), (events[2][2], Value(events[2])[2]));

        value = Value(events[3]);
        Assert.Equal("samples/1", Text(value[1]));
        Dictionary<int, object> tensor = Fields((byte[])value[8]);
        Assert.Equal(7UL, tensor[1]);
        Assert.Equal(1UL, Fields((byte[])Fields((byte[])tensor[2])[2])[1]);
        Assert.Equal(new string('x', 300) + " — süß", Text(tensor[8]));
        Assert.Equal("text", Text(Fields((byte[])Fields((byte[])value[9])[1])[1]));
    }

    [Fact]
    public void The_file_name_is_what_TensorBoard_looks_for_and_resuming_says_from_where()
    {
        ImpatientTime time = new();
        using TensorBoardWriter writer = new(_directory.Path, time, resumedAfterStep: 120);
        Assert.Equal(
            $"events.out.tfevents.{time.GetUtcNow().ToUnixTimeSeconds()}.{Environment.MachineName}.{Environment.ProcessId}", Path.GetFileName(writer.FilePath));
        Dictionary<int, object> start = Decode(writer.FilePath)[1];
        Assert.Equal(121UL, start[2]);
        Assert.Equal(1UL, Fields((byte[])start[7])[1]);
    }

    public void Dispose() => _directory.Dispose();

    private static string Text(object field) => Encoding.UTF8.GetString((byte[])field);

    private static Dictionary<int, object> Value(Dictionary<int, object> e) => Fields((byte[])Fields((byte[])e[5])[1]);

    // TFRecord framing, with a CRC of its own: bit by bit, by the definition.
    private static List<Dictionary<int, object>> Decode(string path)
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

    private static Dictionary<int, object> Fields(byte[] bytes)
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
