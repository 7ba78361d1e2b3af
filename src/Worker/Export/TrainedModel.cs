using Trainer.Contracts;
using Trainer.Worker.Checkpoints;
using Trainer.Worker.Training;

namespace Trainer.Worker.Export;

/// <summary>The model of a job as one of its checkpoints holds it.</summary>
public static class TrainedModel
{
    /// <param name="step">Of which checkpoint; null: the newest good one.</param>
    /// <exception cref="JobInputException">The job has no such good checkpoint.</exception>
    public static async Task<(JobModel Model, JobConfig Job, long Step)> LoadAsync(
        JobFiles files, long? step, bool best, Action<string> log, CancellationToken cancellationToken)
    {
        JobConfig job = JobConfigJson.Load(files.Config);
        ICheckpointStore store = CheckpointStore.Open(job.Checkpoint.Store ?? files.Checkpoints);
        var reader = new CheckpointReader(store, TimeProvider.System);
        IReadOnlyList<CheckpointFinding> findings = await reader.VerifyAsync(cancellationToken);
        List<CheckpointFinding> good = [.. findings.Where(finding => finding.State == CheckpointState.Good)];
        foreach (CheckpointFinding finding in findings.Except(good))
        {
            log($"warning: {finding.Message}");
        }

        if (best && good.Count > 0 && !good.Any(finding => finding.Best))
        {
            int others = findings.Count - good.Count;
            throw new JobInputException($"{store.Address}: no good checkpoint was evaluated{(others > 0 ? $" ({others} damaged, quarantined or incomplete {(others == 1 ? "one is" : "ones are")} not looked at)" : "")}, "
                + "so none is the best; leave --best out to take the newest");
        }

        CheckpointFinding chosen = good.FirstOrDefault(finding => step is { } wanted ? finding.Step == wanted : !best || finding.Best)
            ?? throw new JobInputException($"{store.Address}: no good checkpoint{(step is null ? "" : $" of step {step}")}; there are "
                + (findings.Count > good.Count && good.Count == 0 ? $"only damaged, quarantined or incomplete ones: {string.Join(", ", findings.Select(finding => finding.Step))}" : good.Count == 0 ? "none yet" : "steps " + string.Join(", ", good.Select(finding => finding.Step))));
        JobModel model = JobModel.Load(job, log);
        try
        {
            await TrainingState.RestoreWeightsAsync(model.Model, reader, chosen.Manifest!, cancellationToken);
            return (model, job, chosen.Step);
        }
        catch
        {
            model.Dispose();
            throw;
        }
    }
}
