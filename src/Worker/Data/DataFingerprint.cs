namespace Trainer.Worker.Data;

/// <summary>What decides which tokens are trained on.</summary>
/// <param name="Hash">SHA-256 of all of it, as lower-case hex.</param>
/// <param name="Inputs">Of it what no setting tells: a hash of each file, by what the file is to the job.</param>
public sealed record DataFingerprint(string Hash, IReadOnlyDictionary<string, string> Inputs);
