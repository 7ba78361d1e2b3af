namespace Trainer.Contracts;

/// <summary>Everything that is wrong with a job configuration, each problem one line for a person: where, what, the cure.</summary>
public sealed class ConfigException(IReadOnlyList<string> problems) : Exception(string.Join(Environment.NewLine, problems))
{
    public ConfigException(string problem) : this([problem])
    {
    }

    public IReadOnlyList<string> Problems { get; } = problems;
}
