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

        List<Dictionary<int, object>> events = EventFile.Decode(path);
        Assert.Equal(4, events.Count);
        Assert.Equal("brain.Event:2", Text(events[0][3]));
        Assert.All(events, e => Assert.InRange((double)e[1], 1.7e9, 1e11));

        Dictionary<int, object> value = Value(events[1]);
        Assert.Equal((1UL, "train/loss", 2.5f), (events[1][2], Text(value[1]), value[2]));
        Assert.Equal((1UL << 40, -0.125f), (events[2][2], Value(events[2])[2]));

        value = Value(events[3]);
        Assert.Equal("samples/1", Text(value[1]));
        Dictionary<int, object> tensor = EventFile.Fields((byte[])value[8]);
        Assert.Equal(7UL, tensor[1]);
        Assert.Equal(1UL, EventFile.Fields((byte[])EventFile.Fields((byte[])tensor[2])[2])[1]);
        Assert.Equal(new string('x', 300) + " — süß", Text(tensor[8]));
        Assert.Equal("text", Text(EventFile.Fields((byte[])EventFile.Fields((byte[])value[9])[1])[1]));
    }

    [Fact]
    public void The_file_name_is_what_TensorBoard_looks_for_and_resuming_says_from_where()
    {
        ImpatientTime time = new();
        using TensorBoardWriter writer = new(_directory.Path, time, resumedAfterStep: 120);
        Assert.Equal(
            $"events.out.tfevents.{time.GetUtcNow().ToUnixTimeSeconds()}.{Environment.MachineName}.{Environment.ProcessId}", Path.GetFileName(writer.FilePath));
        Dictionary<int, object> start = EventFile.Decode(writer.FilePath)[1];
        Assert.Equal(121UL, start[2]);
        Assert.Equal(1UL, EventFile.Fields((byte[])start[7])[1]);
    }

    public void Dispose() => _directory.Dispose();

    private static string Text(object field) => Encoding.UTF8.GetString((byte[])field);

    private static Dictionary<int, object> Value(Dictionary<int, object> e) => EventFile.Fields((byte[])EventFile.Fields((byte[])e[5])[1]);
}
