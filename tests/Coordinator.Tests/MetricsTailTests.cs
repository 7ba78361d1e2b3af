using Trainer.Coordinator;

namespace Coordinator.Tests;

public sealed class MetricsTailTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("tail").FullName;

    private string File => Path.Combine(_folder, "metrics.jsonl");

    [Fact]
    public void A_file_that_grows_is_read_line_by_line_and_a_torn_line_waits()
    {
        var tail = new MetricsTail(File);
        Assert.Empty(tail.Read());
        System.IO.File.WriteAllText(File, "{\"step\":1}\n{\"step\":2}\n{\"st");
        Assert.Equal([1, 2], tail.Read().Select(line => line.Step));
        Assert.Empty(tail.Read());
        System.IO.File.AppendAllText(File, "ep\":3}\n");
        Assert.Equal([3], tail.Read().Select(line => line.Step));
    }

    [Fact]
    public void What_is_no_record_is_passed_over_when_others_follow()
    {
        var tail = new MetricsTail(File);
        System.IO.File.WriteAllText(File, "{\"step\":1}\nnot json\n");
        Assert.Equal([1], tail.Read().Select(line => line.Step));
        System.IO.File.AppendAllText(File, "[]\n{\"step\":\"x\"}\n{\"step\":2}\n{\"step\":null}\n{\"step\":3}\n");
        Assert.Equal([2, 3], tail.Read().Select(line => line.Step));
        Assert.Empty(tail.Read());
    }

    [Theory]
    [InlineData("{\"step\":1}\n{\"step\":2}\n", new long[0])]
    [InlineData("{\"step\":1}\n{\"step\":2,\"x\":11111}\n{\"step\":3}\n{\"step\":4}\n", new long[] { 4 })]
    [InlineData("{\"step\":1}\n{\"step\":2}\n{\"step\":9}\n{\"step\":12}\n", new long[] { 9, 12 })]
    public void A_file_that_another_attempt_cut_and_wrote_on_tells_each_step_once(string next, long[] expected)
    {
        var tail = new MetricsTail(File);
        System.IO.File.WriteAllText(File, "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n");
        Assert.Equal([1, 2, 3], tail.Read().Select(line => line.Step));
        System.IO.File.WriteAllText(File, next);
        Assert.Equal(expected, tail.Read().Select(line => line.Step));
    }

    [Fact]
    public void What_is_skipped_can_be_read_apart()
    {
        System.IO.File.WriteAllLines(File, Enumerable.Range(1, 100_000).Select(step => $"{{\"step\":{step}}}"));
        var tail = new MetricsTail(File);
        tail.Skip(1000);
        long first = tail.Read()[0].Step;
        Assert.InRange(first, 99_900, 99_960);
        Assert.Equal(Enumerable.Range(50, 50), MetricsTail.ReadAfter(File, 49).Take(50).Select(line => (int)line.Step));
        Assert.Equal(100_000 - 49, MetricsTail.ReadAfter(File, 49).Count());
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);
}
