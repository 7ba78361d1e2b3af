using Trainer.Contracts;

namespace Trainer.Worker.Training;

/// <summary>The learning rate as a pure function of the step: linear warm-up, then cosine, linear or constant.</summary>
public sealed class LearningRate(OptimizerConfig config, int steps)
{
    private readonly int _warmup = config.WarmupSteps ?? (int)Math.Ceiling(config.WarmupRatio * steps);

    /// <param name="step">0-based: the first update uses <c>At(0)</c>.</param>
    public double At(int step)
    {
        if (step < _warmup)
        {
            return config.LearningRate * (step + 1) / _warmup;
        }

        double done = Math.Min(1, (double)(step - _warmup) / Math.Max(1, steps - _warmup));
        double share = config.Schedule switch
        {
            ScheduleKind.Cosine => (1 + Math.Cos(Math.PI * done)) / 2,
            ScheduleKind.Linear => 1 - done,
            _ => 1,
        };
        return config.MinLearningRate + ((config.LearningRate - config.MinLearningRate) * share);
    }
}
