namespace Trainer.Worker.Verification;

/// <summary>One comparison with a golden value.</summary>
/// <param name="Error">What was measured, in the unit of <paramref name="Tolerance"/>.</param>
public sealed record Check(string Name, double Error, double Tolerance, bool Passed)
{
    /// <summary>Passes when the error is a number and within the tolerance.</summary>
    public static Check Of(string name, double error, double tolerance) => new(name, error, tolerance, error <= tolerance);
}

/// <summary>A golden folder or file and how each of its values compared.</summary>
public sealed record CaseResult(string Case, bool Passed, IReadOnlyList<Check> Checks)
{
    public static CaseResult Of(string name, IReadOnlyList<Check> checks) => new(name, checks.Count > 0 && checks.All(check => check.Passed), checks);
}
