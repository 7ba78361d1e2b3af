using System.Buffers.Text;
using System.Text;
using Trainer.Contracts;

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

    /// <summary>All that there is: tokenization_qwen.py puts the control tokens behind as many, and refuses any other number.</summary>
    private const int Ranks = 151_643;

    private const int ExtraTokens = 205;

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
            if (ids.Count == id)
            {
                throw Broken($"the token of rank {id} is that of a lower rank, too");
            }
        }

        for (int value = 0; value < 256; value++)
        {
            if (!ids.TryFind([(byte)value], out _))
            {
                throw Broken($"no token is the byte 0x{value:X2}");
            }
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
                || !Utf8Parser.TryParse(text[(space + 1)..], out int rank, out int digits) || digits != text.Length - space - 1 || rank is < 0 or >= Ranks)
            {
                throw Broken($"{PlainText.Quote(Encoding.UTF8.GetString(text[..Math.Min(text.Length, 40)]))} is not a token in base64 and a rank below {Ranks}", line);
            }

            if (!byRank.TryAdd(rank, token[..length]))
            {
                throw Broken($"a second token of rank {rank}", line);
            }
        }

        int missing = Enumerable.Range(0, Ranks).FirstOrDefault(rank => !byRank.ContainsKey(rank), -1);
        return byRank.Count == 0 ? throw Broken("the file is empty")
            : missing >= 0 ? throw Broken($"{byRank.Count} tokens where the first Qwen has {Ranks}; that of rank {missing} is missing")
            : [.. Enumerable.Range(0, Ranks).Select(rank => byRank[rank])];
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
