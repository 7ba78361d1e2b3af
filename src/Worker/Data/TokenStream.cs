using System.Text;

namespace Trainer.Worker.Data;

/// <summary>Decodes tokens as they are generated: a character whose bytes lie in several tokens appears when it is whole.</summary>
public sealed class TokenStream(Tokenizer tokenizer, bool skipSpecial = true)
{
    private readonly Decoder _decoder = Encoding.UTF8.GetDecoder();

    /// <summary>The text that this token completes; often one word, sometimes nothing yet.</summary>
    public string Append(int id) => Read(tokenizer.Bytes(id, skipSpecial), flush: false);

    /// <summary>What is left at the end: U+FFFD for a character that never became whole.</summary>
    public string Finish() => Read(default, flush: true);

    private string Read(ReadOnlySpan<byte> bytes, bool flush)
    {
        Span<char> chars = stackalloc char[_decoder.GetCharCount(bytes, flush)];
        return chars[.._decoder.GetChars(bytes, chars, flush)].ToString();
    }
}
