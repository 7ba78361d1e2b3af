using System.Runtime.InteropServices;
using Trainer.Contracts;

namespace Trainer.Worker.Data;

/// <summary>
/// Writes a prepared data set as a stream; it appears under its name when it is complete. Memory holds 16 bytes a document:
/// its offset and its hash.
/// </summary>
internal sealed class PreparedDatasetWriter : IDisposable
{
    private readonly string _path;
    private readonly string _temporary;
    private readonly FileStream _file;
    private readonly string _fingerprint;
    private readonly int _maxLength;
    private readonly OverlongPolicy _overlong;
    private readonly List<long> _offsets = [0];
    private readonly List<ulong> _hashes = [];
    private int _documents;
    private int _truncated;
    private int _dropped;
    private int _withoutTrained;
    private int _longest;
    private int _longestKept;
    private long _trained;

    public PreparedDatasetWriter(string path, string fingerprint, int maxLength, OverlongPolicy overlong)
    {
        _path = path;
        _fingerprint = fingerprint;
        _maxLength = maxLength;
        _overlong = overlong;
        // A name of its own: several processes may build the same file, the last to finish replaces it by its equal.
        _temporary = $"{path}.{Guid.NewGuid():N}.partial";
        _file = new FileStream(_temporary, FileMode.CreateNew, FileAccess.Write, FileShare.None, 1 << 20);
        _file.Write(new byte[PreparedDataset.HeaderBytes]);
    }

    public DataCertificate Certify() => new()
    {
        Fingerprint = _fingerprint,
        Documents = _documents,
        Kept = _hashes.Count,
        Tokens = _offsets[^1],
        TrainedTokens = _trained,
        TrainedShare = _offsets[^1] == 0 ? 0 : (double)_trained / _offsets[^1],
        Truncated = _truncated,
        Dropped = _dropped,
        WithoutTrainedTokens = _withoutTrained,
        Duplicates = CountDuplicates(),
        Longest = _longest,
    };

    /// <exception cref="JobInputException">The document is too long and the policy is to refuse it.</exception>
    public void Add(Document source, TokenizedDocument document)
    {
        _documents++;
        _longest = Math.Max(_longest, document.Ids.Length);
        if (document.Ids.Length > _maxLength)
        {
            if (_overlong == OverlongPolicy.Drop)
            {
                _dropped++;
                return;
            }

            if (_overlong == OverlongPolicy.Error)
            {
                throw Overlong(source, document.Ids.Length, _maxLength);
            }

            _truncated++;
            document = document.Truncate(_maxLength);
        }

        if (document.TrainedTokens == 0)
        {
            _withoutTrained++;
            return;
        }

        Append(document);
    }

    public void Commit()
    {
        _file.Write(MemoryMarshal.AsBytes(CollectionsMarshal.AsSpan(_offsets)));
        _file.Position = 0;
        Span<byte> header = stackalloc byte[PreparedDataset.HeaderBytes];
        new PreparedDataset.Header(_hashes.Count, _offsets[^1], _longestKept, _fingerprint).Write(header);
        _file.Write(header);
        _file.Flush(flushToDisk: true);
        _file.Dispose();
        Certify().Save(_temporary + ".json");
        File.Move(_temporary + ".json", PreparedDataset.CertificatePath(_path), overwrite: true);
        File.Move(_temporary, _path, overwrite: true);
    }

    public void Dispose()
    {
        _file.Dispose();
        File.Delete(_temporary);
    }

    internal static JobInputException Overlong(Document source, int length, int maxLength) => new JobInputException(
        $"the document has {length} tokens, more than max_length {maxLength}; shorten it, raise max_length, or set overlong "
        + "to truncate or drop").At(source.File, source.Line);

    private int CountDuplicates()
    {
        _hashes.Sort();
        return Enumerable.Range(1, Math.Max(0, _hashes.Count - 1)).Count(i => _hashes[i] == _hashes[i - 1]);
    }

    private void Append(TokenizedDocument document)
    {
        var tokens = new PreparedToken[document.Ids.Length];
        ulong hash = (ulong)tokens.Length;
        for (int i = 0; i < tokens.Length; i++)
        {
            tokens[i] = new PreparedToken(document.Ids[i], document.Trained[i]);
            hash = SampleOrder.Mix(hash ^ (ulong)document.Ids[i]);
        }

        _file.Write(MemoryMarshal.AsBytes<PreparedToken>(tokens));
        _offsets.Add(_offsets[^1] + tokens.Length);
        _hashes.Add(hash);
        _trained += document.TrainedTokens;
        _longestKept = Math.Max(_longestKept, tokens.Length);
    }
}
