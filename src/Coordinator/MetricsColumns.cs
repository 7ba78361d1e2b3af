using System.Collections.Immutable;
using System.Text.Json;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>
/// The metrics of one job as columns of numbers, read from metrics.jsonl as far as it goes and further when it has grown. An attempt
/// that resumes cuts the file or puts another in its place: then all of it is read again.
/// </summary>
internal sealed class MetricsColumns(string path)
{
    private const int Chunk = 256 << 10;

    private readonly Lock _lock = new();
    private readonly List<long> _steps = [];
    private readonly List<double> _times = [];
    private readonly List<Column> _columns = [];
    private readonly List<SeriesStart> _starts = [];
    private byte[] _last = [];
    private long _offset;
    private double _seconds;

    /// <summary>Numbers that it keeps.</summary>
    public long Size { get; private set; }

    /// <summary>The reported steps from one to another, in at most so many points.</summary>
    public MetricsSeries Thin(JobId job, long from, long to, int points)
    {
        lock (_lock)
        {
            Read();
            int first = FirstAt(from), end = Math.Max(first, to == long.MaxValue ? _steps.Count : FirstAt(to + 1));
            int count = end - first;
            int bucket = Math.Max(1, (count + points - 1) / points);
            int buckets = (count + bucket - 1) / bucket;
            return new MetricsSeries
            {
                Job = job,
                Total = _steps.Count,
                First = _steps is [var oldest, ..] ? oldest : 0,
                Last = _steps is [.., var newest] ? newest : 0,
                Bucket = bucket,
                Steps = [.. Ends().Select(index => _steps[index])],
                Times = [.. Ends().Select(index => _times[index])],
                Metrics = [.. _columns.Select(column => column.Thin(first, end, bucket))],
                Starts = [.. _starts],
            };

            IEnumerable<int> Ends() => Enumerable.Range(0, buckets).Select(number => Math.Min(first + ((number + 1) * bucket), end) - 1);
        }
    }

    private int FirstAt(long step)
    {
        int index = _steps.BinarySearch(step);
        return index < 0 ? ~index : index;
    }

    private void Read()
    {
        using FileStream? file = Open();
        if (file is null)
        {
            Restart();
            return;
        }
        if (!Continues(file))
        {
            Restart();
        }
        file.Position = _offset;
        byte[] bytes = new byte[Chunk];
        int count = 0;
        while (true)
        {
            if (count == bytes.Length)
            {
                Array.Resize(ref bytes, bytes.Length * 2);
            }
            int read = file.Read(bytes, count, bytes.Length - count);
            if (read == 0)
            {
                break;
            }
            count += read;
            int start = 0;
            while (bytes.AsSpan(start, count - start).IndexOf((byte)'\n') is >= 0 and int length)
            {
                if (!TryAdd(bytes.AsSpan(start, length)) && !bytes.AsSpan(start + length + 1, count - start - length - 1).Contains((byte)'\n'))
                {
                    // The last one may be being written; what other lines follow is no record.
                    break;
                }
                _last = bytes[start..(start + length)];
                _offset += length + 1;
                start += length + 1;
            }
            bytes.AsSpan(start, count - start).CopyTo(bytes);
            count -= start;
        }
        Size = (long)_steps.Count * (_columns.Count + 4);
    }

    private FileStream? Open()
    {
        try
        {
            return new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete, bufferSize: 0);
        }
        catch (Exception error) when (error is FileNotFoundException or DirectoryNotFoundException)
        {
            return null;
        }
    }

    /// <summary>What was read last still stands where it stood.</summary>
    private bool Continues(FileStream file)
    {
        if (file.Length < _offset || _last.Length == 0)
        {
            return _offset == 0;
        }
        byte[] there = new byte[_last.Length];
        file.Position = _offset - _last.Length - 1;
        return file.ReadAtLeast(there, there.Length, throwOnEndOfStream: false) == there.Length && there.AsSpan().SequenceEqual(_last);
    }

    private void Restart()
    {
        _steps.Clear();
        _times.Clear();
        _columns.Clear();
        _starts.Clear();
        (_last, _offset, _seconds, Size) = ([], 0, 0, 0);
    }

    /// <returns>False when the line is no record of a next step.</returns>
    private bool TryAdd(ReadOnlySpan<byte> line)
    {
        long? step = null;
        double time = double.NaN, seconds = double.NaN;
        int row = _steps.Count;
        try
        {
            var reader = new Utf8JsonReader(line);
            reader.Read();
            if (reader.TokenType is not JsonTokenType.StartObject)
            {
                return false;
            }
            while (reader.Read() && reader.TokenType is JsonTokenType.PropertyName)
            {
                bool isStep = reader.ValueTextEquals("step"u8), isTime = reader.ValueTextEquals("time"u8), isSeconds = reader.ValueTextEquals("seconds"u8);
                Column? column = isStep || isTime || isSeconds ? null : ColumnOf(ref reader);
                reader.Read();
                if (isStep)
                {
                    step = reader.TokenType is JsonTokenType.Number && reader.TryGetInt64(out long number) ? number : null;
                }
                else if (isTime)
                {
                    time = reader.TokenType is JsonTokenType.String && reader.TryGetDateTimeOffset(out DateTimeOffset at) ? at.ToUnixTimeMilliseconds() / 1000.0 : double.NaN;
                }
                else if (isSeconds)
                {
                    seconds = reader.TokenType is JsonTokenType.Number ? reader.GetDouble() : double.NaN;
                }
                else if (reader.TokenType is JsonTokenType.Number)
                {
                    column?.Put(row, (float)reader.GetDouble());
                }
                else
                {
                    // A named number that is none (NaN) is told as a gap; what is no number at all is not for charts.
                    reader.Skip();
                }
            }
        }
        catch (Exception error) when (error is JsonException or InvalidOperationException)
        {
            step = null;
        }
        if (step is not { } reported || (row > 0 && reported <= _steps[^1]))
        {
            _columns.ForEach(column => column.Cut(row));
            return false;
        }
        _steps.Add(reported);
        _times.Add(double.IsNaN(time) && row > 0 ? _times[^1] : double.IsNaN(time) ? 0 : time);
        if (seconds < _seconds)
        {
            _starts.Add(new SeriesStart(reported, _times[^1]));
        }
        _seconds = double.IsNaN(seconds) ? _seconds : seconds;
        return true;
    }

    private Column ColumnOf(ref Utf8JsonReader reader)
    {
        foreach (Column column in _columns)
        {
            if (reader.ValueTextEquals(column.Name))
            {
                return column;
            }
        }
        var added = new Column(reader.GetString()!);
        _columns.Add(added);
        return added;
    }

    private sealed class Column(string name)
    {
        private readonly List<float> _values = [];

        public string Name => name;

        public void Put(int row, float value)
        {
            Cut(row);
            while (_values.Count < row)
            {
                _values.Add(float.NaN);
            }
            _values.Add(value);
        }

        public void Cut(int row) => _values.RemoveRange(Math.Min(row, _values.Count), Math.Max(0, _values.Count - row));

        public MetricSeries Thin(int first, int end, int bucket)
        {
            int buckets = (end - first + bucket - 1) / bucket;
            ImmutableArray<float?>.Builder mean = ImmutableArray.CreateBuilder<float?>(buckets), low = ImmutableArray.CreateBuilder<float?>(buckets), high = ImmutableArray.CreateBuilder<float?>(buckets);
            for (int start = first; start < end; start += bucket)
            {
                double sum = 0;
                int count = 0;
                float least = float.PositiveInfinity, most = float.NegativeInfinity;
                for (int i = start; i < Math.Min(Math.Min(start + bucket, end), _values.Count); i++)
                {
                    float value = _values[i];
                    if (float.IsFinite(value))
                    {
                        sum += value;
                        count++;
                        least = Math.Min(least, value);
                        most = Math.Max(most, value);
                    }
                }
                mean.Add(count == 0 ? null : (float)(sum / count));
                low.Add(count == 0 ? null : least);
                high.Add(count == 0 ? null : most);
            }
            return new MetricSeries
            {
                Name = name,
                Mean = mean.MoveToImmutable(),
                Low = bucket == 1 ? null : low.MoveToImmutable(),
                High = bucket == 1 ? null : high.MoveToImmutable(),
            };
        }
    }
}
