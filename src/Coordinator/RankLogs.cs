using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>
/// What ranks write, as far as their agents have sent it. A byte's offset is its sequence number: sending twice changes nothing,
/// and a gap is never stored.
/// </summary>
public sealed class RankLogs(TrainerHome home)
{
    private readonly Lock[] _locks = [.. Enumerable.Range(0, 64).Select(_ => new Lock())];

    /// <summary>Null when there is no such stream.</summary>
    public string? Path(JobId job, int attempt, int rank, string stream)
    {
        JobFiles files = home.Job(job);
        AttemptFiles own = files.Attempt(attempt);
        return stream switch
        {
            "stdout" => own.StdoutOf(rank),
            "stderr" => own.StderrOf(rank),
            "stacks" => own.StacksOf(rank),
            "metrics" => System.IO.Path.Combine(own.Directory, "metrics.jsonl"),
            "samples" => System.IO.Path.Combine(own.Directory, "samples.jsonl"),
            _ => null,
        };
    }

    /// <returns>How long the stream is now: from there on the agent goes on.</returns>
    public long Append(JobId job, int attempt, int rank, string stream, long offset, ReadOnlySpan<byte> bytes)
    {
        string path = Path(job, attempt, rank, stream)!;
        lock (_locks[(uint)path.GetHashCode(StringComparison.Ordinal) % _locks.Length])
        {
            bool created = !File.Exists(path);
            Directory.CreateDirectory(System.IO.Path.GetDirectoryName(path)!);
            using var file = new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.ReadWrite);
            long length = file.Length;
            if (offset <= length && offset + bytes.Length > length)
            {
                file.Position = length;
                file.Write(bytes[(int)(length - offset)..]);
                length = offset + bytes.Length;
            }
            if (created && stream is "metrics" or "samples")
            {
                PointTo(stream is "metrics" ? home.Job(job).Metrics : home.Job(job).Samples, path);
            }
            return length;
        }
    }

    /// <summary>The job's own file is the newest attempt's.</summary>
    private static void PointTo(string link, string path)
    {
        string next = link + ".next";
        File.Delete(next);
        File.CreateSymbolicLink(next, path);
        File.Move(next, link, overwrite: true);
    }
}
