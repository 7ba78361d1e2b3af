using Trainer.Contracts;
using Trainer.Worker.Reports;

namespace Trainer.Worker.Training;

/// <summary>The figures of one optimizer step.</summary>
/// <param name="Step">Optimizer steps done, this one included.</param>
/// <param name="Loss">Mean over the trained tokens of the step.</param>
/// <param name="GradientNorm">Before clipping.</param>
/// <param name="Tokens">Since the start of the training.</param>
/// <param name="Mfu">Model FLOPs utilisation of rank 0's device; null where it is unknown.</param>
public sealed record StepFigures(int Step, double Loss, double GradientNorm, double LearningRate, long Tokens, double TokensPerSecond, double? Mfu);

/// <summary>Where a run's figures go: metrics.jsonl, TensorBoard, samples.jsonl, the log and the heartbeat.</summary>
public sealed class RunReport : IDisposable
{
    private readonly RankReporter _reporter;
    private readonly TimeProvider _time;
    private readonly StepLog<MetricsRecord> _metrics;
    private readonly StepLog<SampleRecord> _samples;
    private readonly TensorBoardWriter _tensorBoard;
    private readonly int _steps;
    private readonly long _started;
    private (int Step, long At)? _pace;

    /// <param name="step">Where the run continues; what was reported later than that is dropped.</param>
    public RunReport(JobFiles files, RankReporter reporter, TimeProvider time, int step, int steps)
    {
        _reporter = reporter;
        _time = time;
        _steps = steps;
        _started = time.GetTimestamp();
        _metrics = StepLog.Metrics(files.Metrics, step);
        _samples = StepLog.Samples(files.Samples, step);
        _tensorBoard = new TensorBoardWriter(files.TensorBoard, time, step > 0 ? step : null);
        reporter.Update(report => report with { Steps = steps, Step = step });
    }

    /// <summary>metrics.jsonl as it is now.</summary>
    public byte[] History() => _metrics.Content();

    /// <summary>Everything that was reported is in its file.</summary>
    /// <exception cref="IOException">A file did not take it.</exception>
    public void Complete()
    {
        _metrics.Flush();
        _samples.Flush();
        if ((_metrics.Problem ?? _samples.Problem) is { } problem)
        {
            throw new IOException(problem);
        }
    }

    public void Step(StepFigures figures, double? evaluation)
    {
        _metrics.Append(new MetricsRecord
        {
            Step = figures.Step,
            Loss = figures.Loss,
            EvalLoss = evaluation,
            LearningRate = figures.LearningRate,
            GradNorm = figures.GradientNorm,
            Tokens = figures.Tokens,
            TokensPerSecond = figures.TokensPerSecond,
            Mfu = figures.Mfu,
            Seconds = _time.GetElapsedTime(_started).TotalSeconds,
            Time = _time.GetUtcNow(),
        });
        _tensorBoard.Scalar("train/loss", figures.Step, (float)figures.Loss);
        _tensorBoard.Scalar("train/learning_rate", figures.Step, (float)figures.LearningRate);
        _tensorBoard.Scalar("train/grad_norm", figures.Step, (float)figures.GradientNorm);
        _tensorBoard.Scalar("train/tokens_per_second", figures.Step, (float)figures.TokensPerSecond);
        if (figures.Mfu is { } mfu)
        {
            _tensorBoard.Scalar("train/mfu", figures.Step, (float)mfu);
        }
        if (evaluation is { } value)
        {
            _tensorBoard.Scalar("eval/loss", figures.Step, (float)value);
        }

        _reporter.Trouble("metrics", (_metrics.Problem ?? _samples.Problem ?? _tensorBoard.Problem) is { } problem
            ? $"the figures wait in memory, because they cannot be written: {problem}"
            : null);
        double? eta = EtaSeconds(figures.Step);
        _reporter.Update(report => report with
        {
            Step = figures.Step,
            Loss = figures.Loss,
            EvalLoss = evaluation ?? report.EvalLoss,
            TokensPerSecond = figures.TokensPerSecond,
            LearningRate = figures.LearningRate,
            GradNorm = double.IsFinite(figures.GradientNorm) ? figures.GradientNorm : null,
            EtaSeconds = eta,
        });
        _reporter.Log(FormattableString.Invariant($"step {figures.Step}/{_steps} loss {figures.Loss:F4} norm {figures.GradientNorm:F3} ")
            + FormattableString.Invariant($"lr {figures.LearningRate:E2} tok/s {figures.TokensPerSecond:F0}")
            + (figures.Mfu is { } share ? FormattableString.Invariant($" mfu {share:P1}") : "")
            + (evaluation is { } loss ? FormattableString.Invariant($" eval {loss:F4}") : "")
            + (eta is { } left ? $" eta {TimeSpan.FromSeconds(left):hh\\:mm\\:ss}" : ""));
    }

    public void Sample(int step, string prompt, string text)
    {
        _samples.Append(new SampleRecord { Step = step, Prompt = prompt, Text = text });
        _tensorBoard.Text($"samples/{prompt}", step, text);
        _reporter.Log($"sample at step {step}: {prompt} -> {text.ReplaceLineEndings(" ")}");
    }

    public void Dispose()
    {
        _metrics.Dispose();
        _samples.Dispose();
        _tensorBoard.Dispose();
    }

    /// <summary>From the pace since this attempt's first report; null before the second.</summary>
    private double? EtaSeconds(int step)
    {
        if (_pace is not { } pace)
        {
            _pace = (step, _time.GetTimestamp());
            return null;
        }

        return _time.GetElapsedTime(pace.At).TotalSeconds / (step - pace.Step) * (_steps - step);
    }
}
