using Trainer.Worker.Reports;
using Trainer.Worker.Tests.Checkpoints;

namespace Trainer.Worker.Tests.Reports;

public sealed class StepLogTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    private string Path => _directory.File("run/metrics.jsonl");

    [Fact]
    public void Records_read_back_to_the_same_bits()
    {
        Random random = new(5);
        MetricsRecord[] records = [.. Enumerable.Range(1, 200).Select(step => Record(step) with
        {
            Loss = Math.Pow(random.NextDouble(), random.Next(-300, 300)),
            EvalLoss = step % 2 == 0 ? random.NextDouble() : null,
            GradNorm = step == 7 ? double.PositiveInfinity : random.NextDouble() / 3,
        })];
        using (StepLog<MetricsRecord> log = Open(0))
        {
            Array.ForEach(records, log.Append);
            Assert.Equal(records.Length, Read().Count);
        }

        Assert.Equal(
            records.Select(r => (r.Step, BitConverter.DoubleToInt64Bits(r.Loss), r.EvalLoss, r.GradNorm)),
            Read().Select(r => (r.Step, BitConverter.DoubleToInt64Bits(r.Loss), r.EvalLoss, r.GradNorm)));
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void What_another_attempt_wrote_stays_as_it_is(bool exists)
    {
        string other = _directory.File("attempt-1/metrics.jsonl");
        using (StepLog<MetricsRecord> log = StepLog.Metrics(other, 0))
        {
            log.Append(Record(1));
            log.Append(Record(2));
        }
        byte[] before = File.ReadAllBytes(other);
        Directory.CreateDirectory(System.IO.Path.GetDirectoryName(Path)!);
        File.CreateSymbolicLink(Path, exists ? other : other + ".gone");

        using (StepLog<MetricsRecord> log = Open(1))
        {
            log.Append(Record(2) with { Loss = 9 });
        }

        Assert.Equal(before, File.ReadAllBytes(other));
        Assert.Null(new FileInfo(Path).LinkTarget);
        Assert.Equal(exists ? new long[] { 1, 2 } : [2], Read().Select(record => record.Step));
        Assert.Equal(9, Read()[^1].Loss);
    }

    [Fact]
    public void A_line_is_one_snake_case_object()
    {
        using StepLog<MetricsRecord> log = Open(0);
        log.Append(Record(3));
        Assert.Equal(
            """{"step":3,"loss":0.1,"learning_rate":1E-05,"grad_norm":0.5,"tokens":300,"tokens_per_second":50.5,"seconds":1.5,"time":"2030-01-02T03:04:05+00:00"}""" + "\n",
            ReadShared());
    }

    [Theory]
    [InlineData(0, 0)]
    [InlineData(2, 1)]
    [InlineData(3, 1)]
    [InlineData(8, 4)]
    [InlineData(99, 4)]
    public void Resuming_drops_the_lines_after_the_step(long step, int kept)
    {
        using (StepLog<MetricsRecord> log = Open(0))
        {
            Array.ForEach([2, 4, 6, 8], s => log.Append(Record(s)));
        }

        using (StepLog<MetricsRecord> log = Open(step))
        {
            log.Append(Record(100));
        }

        Assert.Equal([.. new long[] { 2, 4, 6, 8 }.Take(kept), 100], Read().Select(r => r.Step));
    }

    [Fact]
    public void A_torn_last_line_is_dropped_at_every_length()
    {
        using (StepLog<MetricsRecord> log = Open(0))
        {
            log.Append(Record(1));
            log.Append(Record(2));
        }

        byte[] whole = File.ReadAllBytes(Path);
        for (int cut = 1; cut < whole.Length / 2; cut++)
        {
            File.WriteAllBytes(Path, whole[..^cut]);
            Assert.Equal([1L], Read().Select(r => r.Step));
            using (StepLog<MetricsRecord> log = Open(2))
            {
                log.Append(Record(2));
            }

            Assert.Equal(whole, File.ReadAllBytes(Path));
        }
    }

    [Fact]
    public void A_damaged_line_is_named()
    {
        using (StepLog<MetricsRecord> log = Open(0))
        {
            log.Append(Record(1));
        }

        File.AppendAllText(Path, "{\"step\":2,\"color\":1}\n");
        Assert.Contains($"{Path}:2", Assert.Throws<InvalidDataException>(() => Read()).Message, StringComparison.Ordinal);
        Assert.Throws<InvalidDataException>(() => Open(5));
    }

    public void Dispose() => _directory.Dispose();

    private StepLog<MetricsRecord> Open(long step) => StepLog.Metrics(Path, step);

    private IReadOnlyList<MetricsRecord> Read() => StepLog.ReadMetrics(Path);

    private string ReadShared()
    {
        using StreamReader reader = new(new FileStream(Path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite));
        return reader.ReadToEnd();
    }

    private static MetricsRecord Record(long step) => new()
    {
        Step = step,
        Loss = 0.1,
        LearningRate = 1e-5,
        GradNorm = 0.5,
        Tokens = step * 100,
        TokensPerSecond = 50.5,
        Seconds = step * 0.5,
        Time = new DateTimeOffset(2030, 1, 2, 3, 4, 5, TimeSpan.Zero),
    };
}
