using System.Buffers.Text;
using System.Text;

namespace Trainer.Worker.Data;

/// <summary>
/// qwen.tiktoken, the vocabulary of the first Qwen: a line is a token's bytes in base64 and its rank, which is its id. Two neighbours
/// become one token wherever their bytes together are one, those of the lowest rank first, and a word that is a token is that token. The
/// control tokens are those of tokenization_qwen.py, behind the ranks.
/// </summary>
/// <param name="path">Of the file, which complaints name.</param>
internal sealed class TiktokenReader(string path)
{
    public const string FileName = "qwen.tiktoken";

    private const int ExtraTokens = 205;

    /// <summary>Ranks that no vocabulary reaches.</summary>
    private const int MostRanks = 1 << 24;

    /// <summary>What ends an answer, and a document.</summary>
    public static readonly IReadOnlyList<string> EndTokens = ["<|im_end|>", "<|endoftext|>"];

    /// <exception cref="JobInputException">A line is none.</exception>
    public TokenizerFile Read(byte[] content, string fingerprint)
    {
        List<byte[]> tokens = ReadTokens(content);
        var ids = new Vocabulary(tokens.Count);
        var spelled = new Vocabulary(tokens.Count);
        for (int id = 0; id < tokens.Count; id++)
        {
            ids.Add(tokens[id], id);
            spelled.Add(ByteAlphabet.Encode(tokens[id]), id);
        }

        if (ids.Count < tokens.Count)
        {
            throw Broken("two tokens have the same bytes");
        }

        return new TokenizerFile
        {
            Fingerprint = fingerprint,
            Nfc = true,
            IsTiktoken = true,
            Vocabulary = spelled,
            Merges = Merges(tokens, ids),
            AddedTokens = [.. ControlTokens().Select((name, i) => new AddedToken(
                tokens.Count + i, name, Special: true, StripLeft: false, StripRight: false, Normalized: true, SingleWord: false))],
        };
    }

    /// <summary>By rank.</summary>
    private List<byte[]> ReadTokens(byte[] content)
    {
        var byRank = new Dictionary<int, byte[]>();
        int line = 0;
        foreach (Range range in content.AsSpan().Split((byte)'\n'))
        {
            line++;
            ReadOnlySpan<byte> text = content.AsSpan(range).TrimEnd((byte)'\r');
            if (text.IsEmpty)
            {
                continue;
            }

            int space = text.IndexOf((byte)' ');
            byte[] token = new byte[Base64.GetMaxDecodedFromUtf8Length(Math.Max(space, 0))];
            if (space <= 0 || Base64.DecodeFromUtf8(text[..space], token, out _, out int length) != System.Buffers.OperationStatus.Done || length == 0
                || !Utf8Parser.TryParse(text[(space + 1)..], out int rank, out int digits) || digits != text.Length - space - 1 || rank is < 0 or >= MostRanks)
            {
                throw Broken($"{Encoding.UTF8.GetString(text[..Math.Min(text.Length, 40)])} is not a token in base64 and its rank", line);
            }

            if (!byRank.TryAdd(rank, token[..length]))
            {
                throw Broken($"a second token of rank {rank}", line);
            }
        }

        return byRank.Count > 0 && byRank.Keys.Max() == byRank.Count - 1
            ? [.. Enumerable.Range(0, byRank.Count).Select(rank => byRank[rank])]
            : throw Broken($"{byRank.Count} tokens are not those of the ranks from 0 on");
    }

    private static MergeTable Merges(List<byte[]> tokens, Vocabulary ids)
    {
        var merges = new Dictionary<long, MergeTable.Merge>(4 * tokens.Count);
        for (int id = 0; id < tokens.Count; id++)
        {
            ReadOnlySpan<byte> token = tokens[id];
            for (int cut = 1; cut < token.Length; cut++)
            {
                if (ids.TryFind(token[..cut], out int left) && ids.TryFind(token[cut..], out int right))
                {
                    merges[MergeTable.Key(left, right)] = new MergeTable.Merge(id, id);
                }
            }
        }

        return new MergeTable(merges);
    }

    private static IEnumerable<string> ControlTokens() =>
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", .. Enumerable.Range(0, ExtraTokens).Select(i => $"<|extra_{i}|>")];

    private JobInputException Broken(string what, int? line = null) => new($"{path}{(line is null ? "" : $":{line}")}: {what}; download the file again");
}
