using System.Runtime.CompilerServices;

namespace Trainer.Worker.Data;

/// <summary>
/// Tokens and their ids, found by the UTF-8 text of the token. One block of bytes and one open hash table: as 150,000 strings and a
/// dictionary they would take most of the second in which a tokenizer is loaded. Its methods are called 600,000 times within the first
/// second of a process, before .NET would optimise them by itself.
/// </summary>
/// <param name="capacity">How many tokens will be added at most.</param>
internal sealed class Vocabulary(int capacity)
{
    private readonly Token[] _tokens = new Token[capacity];

    /// <summary>One more than the index of a token; 0: nothing there. Never more than half full.</summary>
    private readonly int[] _table = new int[(int)System.Numerics.BitOperations.RoundUpToPowerOf2((uint)Math.Max(capacity, 1) * 2)];
    private byte[] _text = new byte[Math.Max(capacity, 1) * 8];
    private int _used;

    public int Count { get; private set; }

    /// <summary>-1 when there is none.</summary>
    public int LargestId { get; private set; } = -1;

    /// <summary>Of equal texts the last one counts.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public void Add(ReadOnlySpan<byte> text, int id)
    {
        LargestId = Math.Max(LargestId, id);
        int hash = Hash(text);
        int slot = Find(text, hash);
        if (_table[slot] > 0)
        {
            _tokens[_table[slot] - 1].Id = id;
            return;
        }

        if (_text.Length - _used < text.Length)
        {
            Array.Resize(ref _text, Math.Max(_text.Length * 2, checked(_used + text.Length)));
        }

        text.CopyTo(_text.AsSpan(_used));
        _tokens[Count] = new Token { Start = _used, Length = text.Length, Hash = hash, Id = id };
        _used += text.Length;
        _table[slot] = ++Count;
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public bool TryFind(ReadOnlySpan<byte> text, out int id)
    {
        int found = _table[Find(text, Hash(text))];
        id = found > 0 ? _tokens[found - 1].Id : -1;
        return found > 0;
    }

    /// <param name="index">From 0 to <see cref="Count"/>, in the order in which texts were first added.</param>
    /// <param name="id">The token's.</param>
    public ReadOnlySpan<byte> At(int index, out int id)
    {
        id = _tokens[index].Id;
        return TextOf(in _tokens[index]);
    }

    /// <exception cref="EndOfStreamException">There is less than was written.</exception>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static Vocabulary Read(BinaryReader reader)
    {
        var vocabulary = new Vocabulary(reader.ReadInt32());
        byte[] text = new byte[reader.ReadInt32()];
        for (int i = 0; i < vocabulary._tokens.Length; i++)
        {
            int id = reader.ReadInt32();
            Span<byte> token = text.AsSpan(0, reader.ReadInt32());
            reader.BaseStream.ReadExactly(token);
            vocabulary.Add(token, id);
        }

        return vocabulary;
    }

    public void Write(BinaryWriter writer)
    {
        writer.Write(Count);
        writer.Write(_tokens.Max(token => token.Length));
        foreach (ref readonly Token token in _tokens.AsSpan(0, Count))
        {
            writer.Write(token.Id);
            writer.Write(token.Length);
            writer.Write(TextOf(in token));
        }
    }

    /// <summary>Where the text is, or would be.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private int Find(ReadOnlySpan<byte> text, int hash)
    {
        for (int slot = hash & (_table.Length - 1); ; slot = (slot + 1) & (_table.Length - 1))
        {
            if (_table[slot] == 0 || (_tokens[_table[slot] - 1].Hash == hash && text.SequenceEqual(TextOf(in _tokens[_table[slot] - 1]))))
            {
                return slot;
            }
        }
    }

    private ReadOnlySpan<byte> TextOf(in Token token) => _text.AsSpan(token.Start, token.Length);

    /// <summary>Seeded anew in every process, so that no file can be written to collide.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static int Hash(ReadOnlySpan<byte> text)
    {
        var hash = default(HashCode);
        hash.AddBytes(text);
        return hash.ToHashCode();
    }

    private struct Token
    {
        public int Start, Length, Hash, Id;
    }
}
