using System.Buffers;
using System.Text;

namespace Trainer.Worker.Data;

/// <summary>
/// The byte-level alphabet of GPT-2: every byte has a printable character, so that a vocabulary of byte strings can be
/// written as JSON. Printable bytes stand for themselves, the others are numbered from U+0100.
/// </summary>
internal static class ByteAlphabet
{
    private const int FirstSubstitute = 0x100;

    private static readonly char[] s_charOfByte = CharOfByte();

    /// <summary>-1: not of the alphabet.</summary>
    private static readonly short[] s_byteOfChar = ByteOfChar();

    public static char ToChar(byte value) => s_charOfByte[value];

    /// <summary>The vocabulary entry of these bytes, UTF-8.</summary>
    public static byte[] Encode(ReadOnlySpan<byte> bytes)
    {
        Span<char> characters = bytes.Length <= 256 ? stackalloc char[bytes.Length] : new char[bytes.Length];
        for (int i = 0; i < bytes.Length; i++)
        {
            characters[i] = s_charOfByte[bytes[i]];
        }

        byte[] entry = new byte[Encoding.UTF8.GetByteCount(characters)];
        Encoding.UTF8.GetBytes(characters, entry);
        return entry;
    }

    /// <summary>
    /// Writes the bytes that a vocabulary entry stands for: those of its characters or, when one is outside the alphabet, the entry
    /// itself.
    /// </summary>
    /// <param name="token">UTF-8.</param>
    /// <param name="bytes">Receives them.</param>
    /// <returns>How many they are.</returns>
    public static int Decode(ReadOnlySpan<byte> token, IBufferWriter<byte> bytes)
    {
        Span<byte> decoded = bytes.GetSpan(token.Length);
        int count = 0;
        for (ReadOnlySpan<byte> left = token; left.Length > 0;)
        {
            Rune.DecodeFromUtf8(left, out Rune character, out int length);
            int known = character.Value < s_byteOfChar.Length ? s_byteOfChar[character.Value] : -1;
            if (known < 0)
            {
                token.CopyTo(decoded);
                count = token.Length;
                break;
            }

            decoded[count++] = (byte)known;
            left = left[length..];
        }

        bytes.Advance(count);
        return count;
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

    private static short[] ByteOfChar()
    {
        var bytes = new short[s_charOfByte.Max() + 1];
        Array.Fill(bytes, (short)-1);
        for (short b = 0; b < 256; b++)
        {
            bytes[s_charOfByte[b]] = b;
        }

        return bytes;
    }
}
