namespace Trainer.Worker.Data;

/// <summary>
/// The byte-level alphabet of GPT-2: every byte has a printable character, so that a vocabulary of byte strings can be
/// written as JSON. Printable bytes stand for themselves, the others are numbered from U+0100.
/// </summary>
internal static class ByteAlphabet
{
    private const int FirstSubstitute = 0x100;

    private static readonly char[] s_charOfByte = CharOfByte();
    private static readonly Dictionary<char, byte> s_byteOfChar =
        Enumerable.Range(0, 256).ToDictionary(b => s_charOfByte[b], b => (byte)b);

    public static char ToChar(byte value) => s_charOfByte[value];

    /// <summary>The bytes that a vocabulary entry stands for, or null when it holds a character outside the alphabet.</summary>
    public static byte[]? ToBytes(string token)
    {
        var bytes = new byte[token.Length];
        for (int i = 0; i < token.Length; i++)
        {
            if (!s_byteOfChar.TryGetValue(token[i], out bytes[i]))
            {
                return null;
            }
        }

        return bytes;
    }

    private static char[] CharOfByte()
    {
        var chars = new char[256];
        int substitute = FirstSubstitute;
        for (int b = 0; b < 256; b++)
        {
            bool printable = b is (>= '!' and <= '~') or (>= 0xA1 and <= 0xAC) or >= 0xAE;
            chars[b] = printable ? (char)b : (char)substitute++;
        }

        return chars;
    }
}
