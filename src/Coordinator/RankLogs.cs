using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>
/// What ranks write, as far as their agents have sent it. A byte's offset is its sequence number: sending twice changes nothing,
/// and a gap is never stored.
/// </summary>
public sealed class RankLogs(TrainerHome home)
{
    private readonly Lock[] _locks = [.. Enumerable.Range(0, 64).Select(_ => new Lock())];

    public string Path(RankName rank, LogStream stream)
    {
        AttemptFiles own = home.Job(rank.Job).Attempt(rank.Attempt);
        return stream switch
        {
            LogStream.Stdout => own.StdoutOf(rank.Rank),
            LogStream.Stderr => own.StderrOf(rank.Rank),
            LogStream.Stacks => own.StacksOf(rank.Rank),
            LogStream.Metrics => System.IO.Path.Combine(own.Directory, "metrics.jsonl"),
            _ => System.IO.Path.Combine(own.Directory, "samples.jsonl"),
        };
    }

    /// <summary>
    /// Where the stream is read. Ranks of this machine's own agent write metrics and samples into the files of the job, which are
    /// links when they came from elsewhere.
    /// </summary>
    public string Readable(RankName rank, LogStream stream)
    {
        string path = Path(rank, stream);
        string? job = stream switch
        {
            LogStream.Metrics => home.Job(rank.Job).Metrics,
            LogStream.Samples => home.Job(rank.Job).Samples,
            _ => null,
        };
        return job is not null && !File.Exists(path) && new FileInfo(job) is { Exists: true, LinkTarget: null } ? job : path;
    }

    /// <param name="current">The rank is of the job's newest attempt, whose metrics and samples are the job's.</param>
    /// <returns>How long the stream is now: from there on the agent goes on.</returns>
    public long Append(RankName rank, LogStream stream, long offset, ReadOnlySpan<byte> bytes, bool current)
    {
        string path = Path(rank, stream);
        lock (_locks[(uint)path.GetHashCode(StringComparison.Ordinal) % _locks.Length])
        {
            if (offset > 0 && !File.Exists(path))
            {
                return 0;
            }
            Directory.CreateDirectory(System.IO.Path.GetDirectoryName(path)!);
            using var file = new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.ReadWrite);
            long length = file.Length;
            if (offset <= length && offset + bytes.Length > length)
            {
                file.Position = length;
                file.Write(bytes[(int)(length - offset)..]);
                length = offset + bytes.Length;
            }
            if (current && length > 0 && stream is (LogStream.Metrics or LogStream.Samples))
            {
                PointTo(stream is LogStream.Metrics ? home.Job(rank.Job).Metrics : home.Job(rank.Job).Samples, path);
            }
            return length;
        }
    }

    /// <summary>Ranks that wrote something here which may not be in their job's store.</summary>
    internal IEnumerable<RankName> NotStored() => home.RanksWith("stdout", ".log").Concat(home.RanksWith("stderr", ".log")).Distinct()
        .Where(rank => !File.Exists(home.Job(rank.Job).Attempt(rank.Attempt).StoredOf(rank.Rank)));

    /// <summary>Nothing more of the rank is to be stored; where it wrote nothing, nothing is remembered.</summary>
    internal void Close(RankName rank)
    {
        AttemptFiles own = home.Job(rank.Job).Attempt(rank.Attempt);
        if (Directory.Exists(own.Directory))
        {
            File.WriteAllBytes(own.StoredOf(rank.Rank), []);
        }
    }

    /// <summary>The opposite of <see cref="Close"/>.</summary>
    internal void Reopen(RankName rank)
    {
        string closed = home.Job(rank.Job).Attempt(rank.Attempt).StoredOf(rank.Rank);
        if (File.Exists(closed))
        {
            File.Delete(closed);
        }
    }

    /// <summary>The job's own file is the newest attempt's.</summary>
    private static void PointTo(string link, string path)
    {
        if (new FileInfo(link).LinkTarget == path)
        {
            return;
        }
        string next = link + ".next";
        File.Delete(next);
        File.CreateSymbolicLink(next, path);
        File.Move(next, link, overwrite: true);
    }
}
