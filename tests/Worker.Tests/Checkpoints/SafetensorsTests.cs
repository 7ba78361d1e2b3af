using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Text;
using Trainer.Worker.Checkpoints;

namespace Trainer.Worker.Tests.Checkpoints;

public sealed class SafetensorsTests : IDisposable
{
    private const string A = """ "a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]} """;
    private const string B = """ "b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]} """;
    private readonly TemporaryDirectory _directory = new();

    [Fact]
    public async Task Every_dtype_and_shape_reads_back()
    {
        TensorSpec[] specs =
        [
            .. Enum.GetValues<TensorDType>().Select(dtype => new TensorSpec($"tensor.{dtype}", dtype, [2, 3])),
            new TensorSpec("scalar", TensorDType.F64, []),
            new TensorSpec("empty", TensorDType.F32, [0, 5]),
            new TensorSpec("ünïcode \"quoted\"", TensorDType.U8, [1]),
        ];
        string path = await WriteAsync(specs, new Dictionary<string, string> { ["format"] = "pt", ["author"] = "me" });

        using SafetensorsFile file = SafetensorsFile.Open(path);
        Assert.Equal(specs.Select(s => s.Name).Order(), file.Tensors.Select(t => t.Name).Order());
        Assert.Equal("pt", file.Metadata["format"]);
        foreach (TensorSpec spec in specs)
        {
            TensorEntry entry = file.Find(spec.Name)!;
            Assert.Equal(spec.DType, entry.DType);
            Assert.Equal(spec.Shape, entry.Shape);
            Assert.Equal(spec.Length, entry.Length);
            byte[] bytes = new byte[entry.Length];
            file.Read(entry, bytes);
            Assert.Equal(Content(spec), bytes);
            using NativeBuffer native = NativeBuffer.Allocate(entry.Length);
            file.Read(entry, native.Pointer, native.Length);
            Assert.Equal(bytes, native.AsSpan(0, bytes.Length).ToArray());
        }
    }

    [Fact]
    public async Task The_same_tensors_give_the_same_bytes_with_the_data_aligned()
    {
        TensorSpec[] specs = [new("b", TensorDType.F32, [3]), new("a", TensorDType.BF16, [5])];
        byte[] first = File.ReadAllBytes(await WriteAsync(specs, new Dictionary<string, string> { ["x"] = "1", ["y"] = "2" }));
        byte[] second = File.ReadAllBytes(await WriteAsync(specs, new Dictionary<string, string> { ["y"] = "2", ["x"] = "1" }));

        Assert.Equal(first, second);
        Assert.Equal(0, BinaryPrimitives.ReadInt64LittleEndian(first) % 8);
        string header = Encoding.UTF8.GetString(first.AsSpan(8, (int)BinaryPrimitives.ReadInt64LittleEndian(first)));
        Assert.Equal(
            """{"__metadata__":{"x":"1","y":"2"},"b":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},"a":{"dtype":"BF16","shape":[5],"data_offsets":[12,22]}}""",
            header.TrimEnd(' '));
        Assert.Equal(first.Length, SafetensorsWriter.FileLength(specs, new Dictionary<string, string> { ["x"] = "1", ["y"] = "2" }));
    }

    [Fact]
    public async Task A_writer_refuses_another_tensor_than_the_next()
    {
        TensorSpec[] specs = [new("a", TensorDType.U8, [2]), new("b", TensorDType.U8, [2])];
        SafetensorsWriter writer = await SafetensorsWriter.StartAsync(new MemoryStream(), specs, null, default);
        await Assert.ThrowsAsync<InvalidOperationException>(() => writer.WriteAsync("b", new byte[2], default));
        await Assert.ThrowsAsync<InvalidOperationException>(() => writer.WriteAsync("a", new byte[3], default));
        await writer.WriteAsync("a", new byte[2], default);
        Assert.Throws<InvalidOperationException>(writer.Complete);
        await writer.WriteAsync("b", new byte[2], default);
        writer.Complete();
        await Assert.ThrowsAsync<InvalidOperationException>(() => writer.WriteAsync("c", new byte[2], default));
    }

    [Theory]
    [InlineData("twice", "a", "a")]
    [InlineData("reserved", "__metadata__", "a")]
    public async Task A_writer_refuses_names_that_a_reader_could_not_tell_apart(string expected, string first, string second)
    {
        TensorSpec[] specs = [new(first, TensorDType.U8, [1]), new(second, TensorDType.U8, [1])];
        ArgumentException error = await Assert.ThrowsAsync<ArgumentException>(
            () => SafetensorsWriter.StartAsync(new MemoryStream(), specs, null, default));
        Assert.Contains(expected, error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("{}", 0)]
    [InlineData("{" + A + "," + B + "}", 32)]
    [InlineData("{" + B + "," + A + "}   ", 32)]
    [InlineData("""{"__metadata__":{}}""", 0)]
    [InlineData("""{"z":{"dtype":"I64","shape":[9223372036854775807,0],"data_offsets":[0,0]}}""", 0)]
    public void A_valid_header_is_read(string header, int data)
    {
        using SafetensorsFile file = SafetensorsFile.Open(Write(header, data));
        Assert.True(file.Tensors.Zip(file.Tensors.Skip(1)).All(pair => pair.First.Offset <= pair.Second.Offset));
    }

    [Theory]
    [InlineData("not valid JSON", 0, "not json")]
    [InlineData("not valid JSON", 32, "{" + A + "," + B)]
    [InlineData("not an object", 0, "[1]")]
    [InlineData("tensor 'a': the header names it twice", 48, "{" + A + """, "a":{"dtype":"F32","shape":[2,3],"data_offsets":[24,48]}}""")]
    [InlineData("the header names it twice", 0, """{"__metadata__":{},"__metadata__":{}}""")]
    [InlineData("__metadata__: 'n'", 0, """{"__metadata__":{"n":1}}""")]
    [InlineData("__metadata__ is a JSON Array", 0, """{"__metadata__":[]}""")]
    [InlineData("tensor 'x': described by a JSON Number", 0, """{"x":1}""")]
    [InlineData("tensor 'x': unknown dtype \"F12\"; known are F64, F32", 4, """{"x":{"dtype":"F12","shape":[1],"data_offsets":[0,4]}}""")]
    [InlineData("tensor 'x': unknown dtype 4", 4, """{"x":{"dtype":4,"shape":[1],"data_offsets":[0,4]}}""")]
    [InlineData("tensor 'x': unknown field 'color'", 4, """{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"color":1}}""")]
    [InlineData("tensor 'x': field 'shape' is there twice", 4, """{"x":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}}""")]
    [InlineData("tensor 'x': needs dtype, shape and data_offsets", 4, """{"x":{"dtype":"F32","shape":[1]}}""")]
    [InlineData("tensor 'x': shape [-1]", 4, """{"x":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}""")]
    [InlineData("tensor 'x': shape [1.5]", 4, """{"x":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}}""")]
    [InlineData("tensor 'x': shape \"1\"", 4, """{"x":{"dtype":"F32","shape":"1","data_offsets":[0,4]}}""")]
    [InlineData("overflows 64 bits", 4, """{"x":{"dtype":"F32","shape":[4611686018427387904,4611686018427387904],"data_offsets":[0,4]}}""")]
    [InlineData("overflows 64 bits", 0, """{"x":{"dtype":"F32","shape":[4294967296,4294967296,4294967296,4294967296],"data_offsets":[0,0]}}""")]
    [InlineData("tensor 'x': shape [2] of F32 takes 8 bytes, data_offsets give 4", 4, """{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}""")]
    [InlineData("tensor 'x': data_offsets [0] are not two", 4, """{"x":{"dtype":"F32","shape":[1],"data_offsets":[0]}}""")]
    [InlineData("tensor 'x': data_offsets [-4, 0]", 4, """{"x":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}""")]
    [InlineData("tensor 'x': data_offsets [4, 0]", 4, """{"x":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}""")]
    [InlineData("are not two 64-bit integers", 4, """{"x":{"dtype":"F32","shape":[1],"data_offsets":[18446744073709551612,18446744073709551616]}}""")]
    [InlineData("beyond any file", 4, """{"x":{"dtype":"F32","shape":[1],"data_offsets":[9223372036854775803,9223372036854775807]}}""")]
    [InlineData("tensor 'x': a hole of 1152921504606846976 bytes", 4, """{"x":{"dtype":"F32","shape":[1],"data_offsets":[1152921504606846976,1152921504606846980]}}""")]
    [InlineData("tensor 'x': a hole of 4 bytes", 8, """{"x":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}""")]
    [InlineData("overlap those of", 24, "{" + A + """, "x":{"dtype":"F32","shape":[1],"data_offsets":[20,24]}}""")]
    [InlineData("truncated: its header needs", 31, "{" + A + "," + B + "}")]
    [InlineData("tensor 'b' is the first cut off", 31, "{" + A + "," + B + "}")]
    [InlineData("truncated", 0, "{" + A + "}")]
    [InlineData("1 bytes after its last tensor", 33, "{" + A + "," + B + "}")]
    public void A_header_that_contradicts_the_format_is_refused(string expected, int data, string header)
    {
        string path = Write(header, data);
        JobInputException error = Assert.Throws<JobInputException>(() => SafetensorsFile.Open(path));
        Assert.Contains(path, error.Message, StringComparison.Ordinal);
        Assert.Contains(expected, error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(new byte[0], "truncated")]
    [InlineData(new byte[] { 1, 2, 3 }, "truncated")]
    [InlineData(new byte[] { 3, 0, 0, 0, 0, 0, 0, 0, 1, 2 }, "needs 11 bytes, the file has 10")]
    [InlineData(new byte[] { 255, 255, 255, 255, 255, 255, 255, 255, 1, 2 }, "claims 18446744073709551615 bytes")]
    [InlineData(new byte[] { 1, 0xe1, 0xf5, 5, 0, 0, 0, 0, 1, 2 }, "claims 100000001 bytes")]
    [InlineData(new byte[] { 0, 0, 0, 0, 0, 0, 0, 0 }, "not valid JSON")]
    public void A_file_that_is_no_safetensors_is_refused(byte[] bytes, string expected)
    {
        string path = _directory.File("bad.safetensors");
        File.WriteAllBytes(path, bytes);
        JobInputException error = Assert.Throws<JobInputException>(() => SafetensorsFile.Open(path));
        Assert.Contains(expected, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_missing_file_is_the_users_error() =>
        Assert.Contains("nowhere", Assert.Throws<JobInputException>(() => SafetensorsFile.Open("/nowhere/x.safetensors")).Message, StringComparison.Ordinal);

    [Fact]
    public async Task Every_truncation_is_told_with_the_bytes_expected_and_found()
    {
        string path = await WriteAsync([new("a", TensorDType.F32, [5]), new("b", TensorDType.I16, [7])], null);
        byte[] whole = File.ReadAllBytes(path);
        for (int length = 0; length < whole.Length; length++)
        {
            File.WriteAllBytes(path, whole[..length]);
            JobInputException error = Assert.Throws<JobInputException>(() => SafetensorsFile.Open(path));
            Assert.Contains("truncated", error.Message, StringComparison.Ordinal);
            Assert.Contains($"{length}", error.Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task No_damage_of_a_header_does_more_than_a_clear_error()
    {
        string path = await WriteAsync([new("a", TensorDType.F32, [5]), new("b", TensorDType.I16, [7])], new Dictionary<string, string> { ["k"] = "v" });
        byte[] whole = File.ReadAllBytes(path);
        int refused = 0;
        for (int i = 0; i < whole.Length - 34; i++)
        {
            byte[] damaged = [.. whole];
            damaged[i] ^= (byte)(1 << (i % 8));
            File.WriteAllBytes(path, damaged);
            try
            {
                using SafetensorsFile file = SafetensorsFile.Open(path);
                Assert.Equal(whole.Length, file.Tensors.Sum(t => t.Length) + (whole.Length - 34));
            }
            catch (JobInputException)
            {
                refused++;
            }
        }

        Assert.True(refused > (whole.Length - 34) / 2, $"{refused} refused");
    }

    // Sparse, so that it takes no space on the disk.
    [Fact]
    public void A_tensor_longer_than_one_read_and_beyond_4_GiB_reads_into_native_memory()
    {
        const long Before = (1L << 32) + 5;
        const long Length = (130L << 20) + 3;
        string path = Write(
            $$"""{"before":{"dtype":"U8","shape":[{{Before}}],"data_offsets":[0,{{Before}}] },"far":{"dtype":"U8","shape":[{{Length}}],"data_offsets":[{{Before}},{{Before + Length}}] } }""", 0);
        long start = new FileInfo(path).Length + Before;
        using (FileStream stream = File.OpenWrite(path))
        {
            stream.SetLength(start + Length);
            foreach (long position in new[] { 0, 64L << 20, 128L << 20, Length - 1 })
            {
                stream.Position = start + position;
                stream.WriteByte((byte)(1 + (position >> 20)));
            }
        }

        using SafetensorsFile file = SafetensorsFile.Open(path);
        using NativeBuffer buffer = NativeBuffer.Allocate(Length);
        file.Read(file.Find("far")!, buffer.Pointer, Length);
        Assert.Equal([1, 0], buffer.AsSpan(0, 2).ToArray());
        Assert.Equal([0, 65, 0], buffer.AsSpan((64L << 20) - 1, 3).ToArray());
        Assert.Equal([0, 129, 0], buffer.AsSpan((128L << 20) - 1, 3).ToArray());
        Assert.Equal([0, 131], buffer.AsSpan(Length - 2, 2).ToArray());
        Assert.Throws<ArgumentException>(() => file.Read(file.Find("far")!, buffer.Pointer, Length - 1));
    }

    [Fact]
    public void A_buffer_is_released_once_and_refuses_access_outside()
    {
        int released = 0;
        nint memory = Marshal.AllocHGlobal(16);
        NativeBuffer buffer = NativeBuffer.Borrow(memory, 16, () => released++);
        Assert.Throws<ArgumentOutOfRangeException>(() => buffer.AsSpan(10, 7));
        Assert.Throws<ArgumentOutOfRangeException>(() => buffer.AsMemory(-1, 2));
        buffer.AsMemory(15, 1).Span[0] = 9;
        Assert.Equal(9, Marshal.ReadByte(memory, 15));
        buffer.Dispose();
        buffer.Dispose();
        Assert.Equal(1, released);
        Assert.Throws<ObjectDisposedException>(() => buffer.AsMemory(0, 1));
        Marshal.FreeHGlobal(memory);
    }

    public void Dispose() => _directory.Dispose();

    private static byte[] Content(TensorSpec spec) => [.. Enumerable.Range(0, (int)spec.Length).Select(i => (byte)(i * 31 + spec.Name.Length))];

    private async Task<string> WriteAsync(IReadOnlyList<TensorSpec> specs, Dictionary<string, string>? metadata)
    {
        string path = _directory.File("tensors.safetensors");
        await using FileStream stream = File.Create(path);
        SafetensorsWriter writer = await SafetensorsWriter.StartAsync(stream, specs, metadata, default);
        foreach (TensorSpec spec in specs)
        {
            using NativeBuffer data = NativeBuffer.Copy(Content(spec));
            await writer.WriteAsync(spec.Name, data, default);
        }

        writer.Complete();
        return path;
    }

    private string Write(string header, int data)
    {
        string path = _directory.File("tensors.safetensors");
        byte[] json = Encoding.UTF8.GetBytes(header);
        byte[] file = new byte[8 + json.Length + data];
        BinaryPrimitives.WriteInt64LittleEndian(file, json.Length);
        json.CopyTo(file, 8);
        File.WriteAllBytes(path, file);
        return path;
    }
}
