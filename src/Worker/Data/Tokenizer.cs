using System.Buffers;
using System.Text;
using Trainer.Contracts;

namespace Trainer.Worker.Data;

/// <summary>
/// Byte-level BPE of a Hugging Face tokenizer.json or of the first Qwen's qwen.tiktoken; token ids are those of Hugging Face tokenizers.
/// Safe for any number of threads.
/// </summary>
public sealed class Tokenizer
{
    private const int CacheSlots = 1 << 16;
    private const int LongestCachedWord = 48;

    private readonly TokenizerFile _file;
    private readonly AddedTokens _rawTokens;
    private readonly AddedTokens? _normalizedTokens;
    private readonly Dictionary<string, AddedToken> _addedByContent;

    /// <summary>Id of each byte's own token, or -1.</summary>
    private readonly int[] _tokenOfByte;

    /// <summary>What all tokens write, and where of each id; empty for ids that no token has.</summary>
    private readonly byte[] _bytes;
    private readonly (int Start, int Length)[] _written;
    private readonly bool[] _special;

    /// <summary>Words seen lately. Slots are overwritten whole, so that threads need no lock.</summary>
    private readonly CachedWord?[] _cache = new CachedWord?[CacheSlots];

    private Tokenizer(string path, TokenizerFile file, SpecialTokens special)
    {
        Path = path;
        _file = file;
        _rawTokens = new AddedTokens(file.AddedTokens.Where(token => !token.Normalized));
        _normalizedTokens = file.AddedTokens.Any(token => token.Normalized)
            ? new AddedTokens(file.AddedTokens.Where(token => token.Normalized)
                .Select(token => token with { Content = file.Nfc ? token.Content.Normalize() : token.Content }))
            : null;
        _addedByContent = file.AddedTokens.DistinctBy(token => token.Content).ToDictionary(token => token.Content);
        _tokenOfByte = [.. Enumerable.Range(0, 256)
            .Select(b => file.Vocabulary.TryFind(Encoding.UTF8.GetBytes([ByteAlphabet.ToChar((byte)b)]), out int id) ? id : -1)];

        VocabularySize = 1 + Math.Max(file.Vocabulary.LargestId, file.AddedTokens.Select(token => token.Id).DefaultIfEmpty(-1).Max());
        _written = new (int, int)[VocabularySize];
        _special = new bool[VocabularySize];
        var bytes = new ArrayBufferWriter<byte>(file.Vocabulary.Count * 8 + 1);
        for (int i = 0; i < file.Vocabulary.Count; i++)
        {
            ReadOnlySpan<byte> token = file.Vocabulary.At(i, out int id);
            _written[id] = (bytes.WrittenCount, ByteAlphabet.Decode(token, bytes));
        }

        foreach (AddedToken token in file.AddedTokens)
        {
            _written[token.Id] = (bytes.WrittenCount, (int)Encoding.UTF8.GetBytes(token.Content, bytes));
            _special[token.Id] = token.Special;
        }

        _bytes = bytes.WrittenSpan.ToArray();

        EndTokens = [.. special.End.Select(token => token.Id ?? TokenId(token.Content!)).Concat(file.IsTiktoken ? TiktokenReader.EndTokens.Select(TokenId) : []).Distinct()];
        EndOfText = TryTokenId("<|endoftext|>") ?? (EndTokens.Count > 0 ? EndTokens[0] : null);
        Padding = (special.Padding is { } padding ? TryTokenId(padding) : null) ?? EndOfText;
    }

    private sealed record CachedWord(string Word, int[] Ids);

    /// <summary>The file that it was read from.</summary>
    public string Path { get; }

    /// <summary>Largest id plus one. A model's embedding may have more rows.</summary>
    public int VocabularySize { get; }

    /// <summary>SHA-256 of the file, in hexadecimal.</summary>
    public string Fingerprint => _file.Fingerprint;

    /// <summary>Tokens that end a generation: those of generation_config.json, the eos_token of tokenizer_config.json, and the first Qwen's.</summary>
    public IReadOnlyList<int> EndTokens { get; }

    /// <summary>Ends a plain document: &lt;|endoftext|&gt;, or the first of <see cref="EndTokens"/>.</summary>
    public int? EndOfText { get; }

    public int? Padding { get; }

    /// <param name="directory">Holds tokenizer.json or qwen.tiktoken and, if the model brings them, tokenizer_config.json and generation_config.json.</param>
    /// <exception cref="JobInputException">A file is missing, broken, or of a kind that is not supported.</exception>
    public static Tokenizer Load(string directory) => Load(directory, TrainerHome.FromEnvironment());

    /// <param name="home">Where tokenizers that were read once are kept.</param>
    internal static Tokenizer Load(string directory, TrainerHome home)
    {
        string path = TokenizerFile.PathIn(directory);
        var file = TokenizerFile.Load(path, new TokenizerCache(home));
        if (file.Nfc)
        {
            RequireNfc(text => text.Normalize());
        }

        return new Tokenizer(path, file, SpecialTokens.Load(directory));
    }

    /// <summary>
    /// Recognises special tokens written in the text, as Hugging Face does by default. Without <paramref name="allowSpecial"/>
    /// they are ordinary text, for strangers who must not end their own turn; added tokens that are not special (such as
    /// &lt;think&gt;) are recognised all the same.
    /// </summary>
    public int[] Encode(string text, bool allowSpecial = true) => Encode([new Segment(text, Trained: false, allowSpecial)]).Ids;

    /// <summary>
    /// Ids of the segments' whole text. A token that lies in two segments belongs to the one where it begins.
    /// </summary>
    public TokenizedDocument Encode(IReadOnlyList<Segment> segments)
    {
        var encoding = new SegmentEncoding(segments);
        AddedTokens.Match match;
        int from = 0;
        for (; _rawTokens.TryFind(encoding.Text, from, IsAllowed, out match); from = match.End)
        {
            EncodeText(encoding, from, match.Start);
            encoding.Add(match.Token.Id, encoding.IsTrained(match.At));
        }

        EncodeText(encoding, from, encoding.Text.Length);
        return encoding.ToDocument();

        bool IsAllowed(AddedToken token, int at) => !token.Special || encoding.SegmentAt(at).AllowSpecial;
    }

    /// <summary>The text of the ids. Bytes that are not UTF-8 become U+FFFD; ids without a token write nothing.</summary>
    public string Decode(IEnumerable<int> ids, bool skipSpecial = false)
    {
        var bytes = new ArrayBufferWriter<byte>();
        foreach (int id in ids)
        {
            bytes.Write(Bytes(id, skipSpecial));
        }

        return Encoding.UTF8.GetString(bytes.WrittenSpan);
    }

    /// <summary>The id of a token by its text, e.g. &lt;|im_end|&gt;, or of a vocabulary entry in the byte-level alphabet.</summary>
    /// <exception cref="JobInputException">There is no such token.</exception>
    public int TokenId(string token) => TryTokenId(token) ?? throw new JobInputException(
        $"{Path}: no token \"{token}\"; use the tokenizer that belongs to the model");

    public int? TryTokenId(string token) =>
        _addedByContent.TryGetValue(token, out AddedToken? added) ? added.Id
        : _file.Vocabulary.TryFind(Encoding.UTF8.GetBytes(token), out int id) ? id
        : null;

    internal ReadOnlySpan<byte> Bytes(int id, bool skipSpecial) =>
        (uint)id >= (uint)_written.Length || (skipSpecial && _special[id]) ? default : _bytes.AsSpan(_written[id].Start, _written[id].Length);

    /// <summary>.NET without ICU leaves text as it is, which would change token ids without a word.</summary>
    internal static void RequireNfc(Func<string, string> normalize)
    {
        if (normalize("e\u0301") != "\u00E9" || normalize("\u1112\u1161\u11AB") != "\uD55C")
        {
            throw new JobInputException(
                "this .NET cannot normalise Unicode, so token ids would differ from the model's; "
                + "install ICU (Debian: apt-get install libicu72) and unset DOTNET_SYSTEM_GLOBALIZATION_INVARIANT");
        }
    }

    private void EncodeText(SegmentEncoding encoding, int start, int end)
    {
        if (start == end)
        {
            return;
        }

        encoding.Enter(start, end, _file.Nfc);
        if (_normalizedTokens is null)
        {
            EncodeWords(encoding, 0, encoding.Piece.Length);
            return;
        }

        int from = 0;
        for (; _normalizedTokens.TryFind(encoding.Piece, from, IsAllowed, out AddedTokens.Match match); from = match.End)
        {
            EncodeWords(encoding, from, match.Start);
            encoding.AddWord(match.At, match.End, [match.Token.Id], this);
        }

        EncodeWords(encoding, from, encoding.Piece.Length);

        bool IsAllowed(AddedToken token, int at) => !token.Special || encoding.PieceSegmentAt(at).AllowSpecial;
    }

    private void EncodeWords(SegmentEncoding encoding, int start, int end)
    {
        ReadOnlySpan<char> text = encoding.Piece.AsSpan(start, end - start);
        var words = new WordScanner(text);
        while (words.MoveNext())
        {
            encoding.AddWord(start + words.Start, start + words.End, EncodeWord(text[words.Start..words.End]), this);
        }
    }

    private int[] EncodeWord(ReadOnlySpan<char> word)
    {
        if (word.Length > LongestCachedWord)
        {
            return Merge(word);
        }

        ref CachedWord? slot = ref _cache[string.GetHashCode(word) & (CacheSlots - 1)];
        if (slot is { } cached && word.SequenceEqual(cached.Word))
        {
            return cached.Ids;
        }

        int[] ids = Merge(word);
        slot = new CachedWord(word.ToString(), ids);
        return ids;
    }

    private int[] Merge(ReadOnlySpan<char> word)
    {
        byte[] bytes = ArrayPool<byte>.Shared.Rent(Encoding.UTF8.GetMaxByteCount(word.Length));
        int length = Encoding.UTF8.GetBytes(word, bytes);
        if (_file.IsTiktoken && _file.Vocabulary.TryFind(ByteAlphabet.Encode(bytes.AsSpan(0, length)), out int whole))
        {
            ArrayPool<byte>.Shared.Return(bytes);
            return [whole];
        }

        int[] ids = ArrayPool<int>.Shared.Rent(length);
        for (int i = 0; i < length; i++)
        {
            ids[i] = _tokenOfByte[bytes[i]];
            if (ids[i] < 0)
            {
                throw new JobInputException($"{Path}: the vocabulary has no token for "
                    + $"byte 0x{bytes[i]:X2}; use a byte-level tokenizer whose vocabulary holds all 256 bytes");
            }
        }

        int[] merged = _file.Merges.Apply(ids.AsSpan(0, length));
        ArrayPool<byte>.Shared.Return(bytes);
        ArrayPool<int>.Shared.Return(ids);
        return merged;
    }
}
