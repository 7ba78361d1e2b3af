using System.Security.Cryptography;
using System.Text;
using Trainer.Contracts;

namespace Trainer.Worker.Data;

/// <summary>
/// What was read from tokenizer files, kept in the trainer's home under the SHA-256 of each file: its ten megabytes of JSON take a new
/// process half a second, these a tenth of that, and a job is checked in one process and trained in another. Whatever is not
/// there, or not whole, is read from JSON.
/// </summary>
/// <param name="home">Where it is kept, once that folder is there; it is not made for this.</param>
internal sealed class TokenizerCache(TrainerHome home)
{
    /// <summary>To be raised when <see cref="TokenizerFile"/> reads anything in another way.</summary>
    private const int Version = 2;

    /// <returns>Null when it is not there.</returns>
    public TokenizerFile? Read(string fingerprint)
    {
        try
        {
            byte[] bytes = File.ReadAllBytes(PathOf(fingerprint));
            int length = bytes.Length - SHA256.HashSizeInBytes;
            return length > 0 && SHA256.HashData(bytes.AsSpan(0, length)).AsSpan().SequenceEqual(bytes.AsSpan(length))
                ? Read(new BinaryReader(new MemoryStream(bytes, 0, length)), fingerprint)
                : null;
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    public void Write(TokenizerFile file)
    {
        try
        {
            if (!Directory.Exists(home.Directory))
            {
                return;
            }

            Directory.CreateDirectory(home.Tokenizers);
            var bytes = new MemoryStream();
            Write(new BinaryWriter(bytes), file);
            bytes.Write(SHA256.HashData(bytes.GetBuffer().AsSpan(0, (int)bytes.Length)));
            string path = PathOf(file.Fingerprint), partial = $"{path}.{Guid.NewGuid():N}";
            File.WriteAllBytes(partial, bytes.ToArray());
            File.Move(partial, path, overwrite: true);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            // Read from JSON again next time.
        }
    }

    private string PathOf(string fingerprint) => Path.Combine(home.Tokenizers, FormattableString.Invariant($"{fingerprint}.{Version}"));

    private static TokenizerFile Read(BinaryReader reader, string fingerprint) => new()
    {
        Fingerprint = fingerprint,
        Nfc = reader.ReadBoolean(),
        IsTiktoken = reader.ReadBoolean(),
        AddedTokens =
        [
            .. Enumerable.Range(0, reader.ReadInt32()).Select(_ => new AddedToken(
                reader.ReadInt32(), Encoding.Unicode.GetString(reader.ReadBytes(reader.ReadInt32())), Special: reader.ReadBoolean(), StripLeft: reader.ReadBoolean(),
                StripRight: reader.ReadBoolean(), Normalized: reader.ReadBoolean(), SingleWord: reader.ReadBoolean())),
        ],
        Vocabulary = Vocabulary.Read(reader),
        Merges = MergeTable.Read(reader),
    };

    private static void Write(BinaryWriter writer, TokenizerFile file)
    {
        writer.Write(file.Nfc);
        writer.Write(file.IsTiktoken);
        writer.Write(file.AddedTokens.Count);
        foreach (AddedToken token in file.AddedTokens)
        {
            // Not as UTF-8: JSON may spell half a surrogate pair.
            byte[] content = Encoding.Unicode.GetBytes(token.Content);
            writer.Write(token.Id);
            writer.Write(content.Length);
            writer.Write(content);
            writer.Write(token.Special);
            writer.Write(token.StripLeft);
            writer.Write(token.StripRight);
            writer.Write(token.Normalized);
            writer.Write(token.SingleWord);
        }

        file.Vocabulary.Write(writer);
        file.Merges.Write(writer);
    }
}
