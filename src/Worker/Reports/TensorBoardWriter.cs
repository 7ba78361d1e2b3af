using System.Buffers.Binary;
using System.Globalization;

namespace Trainer.Worker.Reports;

/// <summary>
/// Writes a TensorBoard event file: TFRecords (u64 length, masked CRC of it, Event message, masked CRC of that), one file an
/// attempt. Only the handful of protobuf fields that TensorBoard needs are encoded.
/// </summary>
public sealed class TensorBoardWriter : IDisposable
{
    private readonly SpoolFile _file;
    private readonly TimeProvider _time;

    /// <param name="directory">TensorBoard's run folder, created when missing.</param>
    /// <param name="time">Dates the file name and every event.</param>
    /// <param name="resumedAfterStep">The step that training continues from: TensorBoard drops what earlier attempts wrote past it.</param>
    public TensorBoardWriter(string directory, TimeProvider time, long? resumedAfterStep = null)
    {
        _time = time;
        Directory.CreateDirectory(directory);
        FilePath = Path.Combine(directory, string.Create(
            CultureInfo.InvariantCulture,
            $"events.out.tfevents.{time.GetUtcNow().ToUnixTimeSeconds()}.{Environment.MachineName}.{Environment.ProcessId}"));
        _file = new SpoolFile(File.OpenHandle(FilePath, FileMode.CreateNew, FileAccess.Write));
        Write(0, e => e.Text(EventField.FileVersion, "brain.Event:2"));
        if (resumedAfterStep is { } step)
        {
            // SessionLog { status = START }.
            Write(step + 1, e => e.Message(EventField.SessionLog, log => log.Number(1, 1)));
        }
    }

    public string FilePath { get; }

    /// <inheritdoc cref="SpoolFile.Problem"/>
    public string? Problem => _file.Problem;

    /// <summary>A point of a curve.</summary>
    public void Scalar(string tag, long step, float value) =>
        WriteSummary(step, tag, v => v.Float(ValueField.SimpleValue, value));

    /// <summary>Markdown shown under Text.</summary>
    public void Text(string tag, long step, string text) => WriteSummary(step, tag, v =>
    {
        // TensorProto { dtype = DT_STRING, tensor_shape { dim { size = 1 } }, string_val = text }.
        v.Message(ValueField.Tensor, tensor =>
        {
            tensor.Number(1, 7);
            tensor.Message(2, shape => shape.Message(2, dimension => dimension.Number(1, 1)));
            tensor.Text(8, text);
        });

        // SummaryMetadata { plugin_data { plugin_name = "text" } }.
        v.Message(ValueField.Metadata, metadata => metadata.Message(1, plugin => plugin.Text(1, "text")));
    });

    public void Dispose() => _file.Dispose();

    private void WriteSummary(long step, string tag, Action<ProtobufMessage> value) =>
        Write(step, e => e.Message(EventField.Summary, summary => summary.Message(1, v =>
        {
            v.Text(ValueField.Tag, tag);
            value(v);
        })));

    private void Write(long step, Action<ProtobufMessage> content)
    {
        ProtobufMessage message = new();
        message.Double(EventField.WallTime, (_time.GetUtcNow() - DateTimeOffset.UnixEpoch).TotalSeconds);
        message.Number(EventField.Step, step);
        content(message);
        WriteRecord(message.Bytes);
    }

    // In one write and unbuffered: a killed process leaves whole records.
    private void WriteRecord(ReadOnlySpan<byte> payload)
    {
        byte[] record = new byte[12 + payload.Length + 4];
        BinaryPrimitives.WriteInt64LittleEndian(record, payload.Length);
        BinaryPrimitives.WriteUInt32LittleEndian(record.AsSpan(8), Crc32C.Masked(record.AsSpan(0, 8)));
        payload.CopyTo(record.AsSpan(12));
        BinaryPrimitives.WriteUInt32LittleEndian(record.AsSpan(12 + payload.Length), Crc32C.Masked(payload));
        _file.Append(record);
    }

    private static class EventField
    {
        public const int WallTime = 1;
        public const int Step = 2;
        public const int FileVersion = 3;
        public const int Summary = 5;
        public const int SessionLog = 7;
    }

    private static class ValueField
    {
        public const int Tag = 1;
        public const int SimpleValue = 2;
        public const int Tensor = 8;
        public const int Metadata = 9;
    }
}
