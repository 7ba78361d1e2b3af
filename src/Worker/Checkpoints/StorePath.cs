namespace Trainer.Worker.Checkpoints;

/// <summary>
/// Paths inside a store: segments of letters, digits, '-', '_' and '.' joined by '/', no segment starting with '.'. So no
/// path leaves the store, and every store can hold every path.
/// </summary>
public static class StorePath
{
    private const int MaxLength = 512;

    /// <summary>Returns <paramref name="path"/> when it is valid.</summary>
    /// <exception cref="ArgumentException">It is not.</exception>
    public static string Require(string path) =>
        IsValid(path) ? path : throw new ArgumentException($"'{path}' is not a path inside a checkpoint store", nameof(path));

    public static bool IsValid(string path) =>
        path.Length is > 0 and <= MaxLength && path.Split('/').All(IsSegment);

    private static bool IsSegment(string segment) =>
        segment.Length > 0 && segment[0] != '.' && segment.All(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '_' or '.');
}
