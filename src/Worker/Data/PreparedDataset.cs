using System.Buffers.Binary;
using System.IO.MemoryMappedFiles;

namespace Trainer.Worker.Data;

/// <summary>A token and whether it is trained, in the 4 bytes of a cache file: the sign bit is the mask.</summary>
public readonly struct PreparedToken(int id, bool trained)
{
    private readonly int _value = trained ? id | int.MinValue : id;

    public int Id => _value & int.MaxValue;

    public bool Trained => _value < 0;
}

/// <summary>
/// Tokenised documents in a memory-mapped file: any document at once, whatever the size of the file. Little-endian:
/// a header, the tokens of all documents behind each other (int32), then where each begins, and the end (int64).
/// </summary>
public sealed unsafe class PreparedDataset : IDisposable
{
    internal const int HeaderBytes = 72;
    internal const ulong Magic = 0x31_4E_45_4B_4F_54_52_54; // "TRTOKEN1"

    private readonly MemoryMappedFile _file;
    private readonly MemoryMappedViewAccessor _view;
    private readonly byte* _base;
    private readonly PreparedToken* _tokens;
    private readonly long* _offsets;

    private PreparedDataset(MemoryMappedFile file, Header header, DataCertificate certificate)
    {
        _file = file;
        _view = file.CreateViewAccessor(0, 0, MemoryMappedFileAccess.Read);
        _view.SafeMemoryMappedViewHandle.AcquirePointer(ref _base);
        _tokens = (PreparedToken*)(_base + HeaderBytes);
        _offsets = (long*)(_tokens + header.Tokens);
        Count = header.Documents;
        Tokens = header.Tokens;
        LongestDocument = header.Longest;
        Certificate = certificate;
    }

    /// <summary>Documents; each has at least one trained token.</summary>
    public int Count { get; }

    public long Tokens { get; }

    /// <summary>In tokens.</summary>
    public int LongestDocument { get; }

    public DataCertificate Certificate { get; }

    /// <summary>The tokens of a document; valid until the data set is disposed.</summary>
    public ReadOnlySpan<PreparedToken> this[int document] => new(_tokens + Offset(document), Length(document));

    /// <summary>In tokens.</summary>
    public int Length(int document) => (int)(Offset(document + 1) - Offset(document));

    /// <summary>
    /// The file of this fingerprint, or null when it has to be built: missing, of other sources or options, or incomplete.
    /// </summary>
    public static PreparedDataset? TryOpen(string path, string fingerprint)
    {
        if (!File.Exists(path)
            || DataCertificate.TryLoad(CertificatePath(path)) is not { } certificate || certificate.Fingerprint != fingerprint
            || Header.TryRead(path) is not { } header || header.Fingerprint != fingerprint)
        {
            return null;
        }

        return new PreparedDataset(MemoryMappedFile.CreateFromFile(path, FileMode.Open, null, 0, MemoryMappedFileAccess.Read), header, certificate);
    }

    public void Dispose()
    {
        _view.SafeMemoryMappedViewHandle.ReleasePointer();
        _view.Dispose();
        _file.Dispose();
    }

    internal static string CertificatePath(string path) => Path.ChangeExtension(path, ".json");

    private long Offset(int document)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan((uint)document, (uint)Count, nameof(document));
        ObjectDisposedException.ThrowIf(_view.SafeMemoryMappedViewHandle.IsClosed, this);
        return _offsets[document];
    }

    /// <summary>The first 72 bytes: magic, documents, tokens, longest document, SHA-256.</summary>
    internal readonly record struct Header(int Documents, long Tokens, int Longest, string Fingerprint)
    {
        public void Write(Span<byte> bytes)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(bytes, Magic);
            BinaryPrimitives.WriteInt64LittleEndian(bytes[8..], Documents);
            BinaryPrimitives.WriteInt64LittleEndian(bytes[16..], Tokens);
            BinaryPrimitives.WriteInt64LittleEndian(bytes[24..], Longest);
            Convert.FromHexString(Fingerprint).CopyTo(bytes[32..]);
            bytes[64..HeaderBytes].Clear();
        }

        /// <summary>Null unless the header is ours and the file as long as it says.</summary>
        public static Header? TryRead(string path)
        {
            using FileStream file = File.OpenRead(path);
            Span<byte> bytes = stackalloc byte[HeaderBytes];
            if (file.ReadAtLeast(bytes, HeaderBytes, throwOnEndOfStream: false) < HeaderBytes
                || BinaryPrimitives.ReadUInt64LittleEndian(bytes) != Magic)
            {
                return null;
            }

            long documents = BinaryPrimitives.ReadInt64LittleEndian(bytes[8..]);
            long tokens = BinaryPrimitives.ReadInt64LittleEndian(bytes[16..]);
            long longest = BinaryPrimitives.ReadInt64LittleEndian(bytes[24..]);
            return file.Length == HeaderBytes + (tokens * sizeof(int)) + ((documents + 1) * sizeof(long))
                ? new Header((int)documents, tokens, (int)longest, Convert.ToHexStringLower(bytes[32..64]))
                : null;
        }
    }
}
