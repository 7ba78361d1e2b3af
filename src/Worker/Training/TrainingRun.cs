using System.Text.Json;
using Trainer.Contracts;
using Trainer.Worker.Checkpoints;
using Trainer.Worker.Data;
using Trainer.Worker.Export;
using Trainer.Worker.Model;
using TorchSharp;
using static TorchSharp.torch;

namespace Trainer.Worker.Training;

/// <summary>
/// One attempt of a job on one rank: load, continue from the newest good checkpoint, train, evaluate, save, export. All of it
/// runs on the calling thread, because libtorch's thread count and our scopes belong to a thread.
/// </summary>
public sealed class TrainingRun : IDisposable
{
    private readonly JobConfig _job;
    private readonly JobFiles _files;
    private readonly RankReporter _reporter;
    private readonly TimeProvider _time;
    private readonly FaultInjection _faults;
    private readonly JobModel _loaded;
    private readonly PreparedData _data;
    private readonly Packer _packer;
    private readonly SampleOrder _order;
    private readonly AdamW _optimizer;
    private readonly LearningRate _schedule;
    private readonly CheckpointWriter _checkpoints;
    private readonly RunReport _report;
    private readonly int _steps;

    private int _step;
    private long _cursor;
    private long _tokens;
    private volatile int _saving;
    private volatile int _lastCommitted;

    public TrainingRun(JobConfig job, JobId id, JobFiles files, int attempt, RankReporter reporter, TimeProvider time)
    {
        _job = job;
        _files = files;
        _reporter = reporter;
        _time = time;
        _faults = new FaultInjection(attempt);
        set_num_threads(job.Training.Threads ?? Environment.ProcessorCount);

        reporter.Enter(RankPhase.Loading, "loading the model");
        _loaded = JobModel.Load(job, reporter.Log);
        reporter.Enter(RankPhase.Preparing, "tokenising the data");
        _data = PreparedData.Prepare(job.Data, job.Seed, _loaded.Tokenizer, _loaded.Template, files.Data);
        reporter.Log($"data: {_data.Train.Certificate}");
        _order = new SampleOrder(job.Seed, _data.Train.Count);
        _packer = new Packer(_data.Train, _order, job.Training.GradientAccumulation, job.Training.BatchTokens, job.Training.BatchDocuments);
        _steps = job.Training.Steps ?? _packer.StepsFor(job.Training.Epochs ?? 1);
        _schedule = new LearningRate(job.Optimizer, _steps);
        _optimizer = new AdamW(Model.TrainedTensors(), job.Optimizer);

        string fingerprint = TrainingFingerprint.Of(job, _data.Train.Certificate.Fingerprint);
        ICheckpointStore store = CheckpointStore.Open(job.Checkpoint.Store ?? files.Checkpoints, time);
        Restore(store, id, fingerprint);
        _report = new RunReport(files, reporter, time, _step, _steps);
        _checkpoints = new CheckpointWriter(store, Author(id, WritingAttempt(store, attempt), fingerprint), new CheckpointWriterOptions
        {
            Keep = job.Checkpoint.Keep,
            Time = time,
            Committed = Committed,
            Phase = phase =>
            {
                _faults.Reach(phase.ToString(), _saving);
                return ValueTask.CompletedTask;
            },
        });
    }

    /// <summary>Step of the newest committed checkpoint; 0: none yet. Read from any thread.</summary>
    public int LastCommitted => _lastCommitted;

    private QwenModel Model => _loaded.Model;

    /// <summary>Trains to the end, or until <paramref name="stop"/> asks for a last checkpoint.</summary>
    /// <returns>Whether the end was reached.</returns>
    public bool Run(CancellationToken stop)
    {
        _reporter.Enter(RankPhase.Training);
        while (_step < _steps)
        {
            StepFigures figures = Advance();
            double? evaluation = IsDue(_job.Evaluation.Every) ? Evaluate() : null;
            if (IsDue(_job.Training.ReportEvery) || evaluation is not null)
            {
                _report.Step(figures, evaluation);
            }

            if (IsDue(_job.Samples.Every))
            {
                WriteSamples();
            }

            bool stopping = stop.IsCancellationRequested && _step < _steps;
            if (IsDue(_job.Checkpoint.Every) || stopping)
            {
                Save(evaluation);
            }

            if (stopping)
            {
                Complete();
                return false;
            }
        }

        Complete();
        Export();
        return true;
    }

    public void Dispose()
    {
        _checkpoints.DisposeAsync().AsTask().GetAwaiter().GetResult();
        _report.Dispose();
        _optimizer.Dispose();
        _data.Dispose();
        _loaded.Dispose();
    }

    /// <summary>One optimizer step: every micro-batch forward and backward, clip, update.</summary>
    private StepFigures Advance()
    {
        long begun = _time.GetTimestamp();
        StepBatches batches = _packer.Next(_cursor);
        double scale = 1.0 / batches.TrainedTokens;
        double loss = 0;
        for (int i = 0; i < batches.Batches.Count; i++)
        {
            if (batches.Batches[i].TrainedTokens > 0)
            {
                loss += ForwardBackward(batches.Batches[i], scale, DropoutSeed(_step, i));
            }
        }

        double norm = _optimizer.GradientNorm();
        RequireFinite(loss, norm);
        double learningRate = _schedule.At(_step);
        _optimizer.Step(++_step, learningRate, GradientClip.Scale(norm, _job.Optimizer.MaxGradientNorm));
        _cursor = batches.NextCursor;
        int tokens = batches.Batches.Sum(batch => batch.Tokens.Length);
        _tokens += tokens;
        _checkpoints.ThrowIfFailed();
        _faults.Reach("Step", _step);
        return new StepFigures(_step, loss, norm, learningRate, _tokens, tokens / _time.GetElapsedTime(begun).TotalSeconds);
    }

    private double ForwardBackward(PackedBatch batch, double scale, ulong dropoutSeed)
    {
        using DisposeScope scope = NewDisposeScope();
        using ModelInput input = ModelInput.From(batch, Model.Placement.Device);
        Tensor loss = Model.Loss(input, scale, dropoutSeed);
        loss.backward();
        _optimizer.AccumulateGradients();
        return loss.ToDouble();
    }

    /// <summary>Before the update: a bad step must not reach the weights.</summary>
    private void RequireFinite(double loss, double norm)
    {
        if (!double.IsFinite(loss) || !double.IsFinite(norm))
        {
            throw new JobInputException($"step {_step + 1}: the loss is {loss} and the gradient norm {norm}"
                + (_optimizer.FirstNonFinite() is { } name ? $" (first in {name})" : "")
                + "; lower optimizer.learning_rate, lengthen the warm-up, or look at the data near "
                + $"sample {_cursor}; the weights of step {_step} were not touched");
        }
    }

    /// <summary>Due every so many steps and always at the end.</summary>
    private bool IsDue(int? every) => _step == _steps || (every is { } n && _step % n == 0);

    private double? Evaluate()
    {
        if (_data.Eval is not { } data)
        {
            return null;
        }

        _reporter.Enter(RankPhase.Evaluating);
        double loss = Evaluation.Run(Model, data, _job.Training.BatchTokens, _job.Evaluation.MaxDocuments);
        _reporter.Enter(RankPhase.Training);
        return loss;
    }

    /// <summary>Greedy or sampled continuations of the configured prompts, for a person to read.</summary>
    private void WriteSamples()
    {
        foreach (string prompt in _job.Samples.Prompts)
        {
            int[] ids = _loaded.Template.Prompt(new Conversation(new Message("user", prompt)), _loaded.Tokenizer);
            int[] tokens = [.. TextGenerator.Continue(
                Model, ids, _job.Samples.MaxNewTokens, _job.Samples.Temperature, _loaded.Tokenizer.EndTokens, _job.Seed + _step)];
            _report.Sample(_step, prompt, _loaded.Tokenizer.Decode(tokens, skipSpecial: true));
        }
    }

    private void Save(double? evaluation)
    {
        _reporter.Enter(RankPhase.Saving);
        // The save before comes first: two snapshots at once would need twice the memory.
        Wait(_checkpoints.CompleteAsync());
        _saving = _step;
        _faults.Reach("Snapshot", _step);
        CheckpointSnapshot snapshot = TrainingState.Capture(_optimizer, _step, _cursor, evaluation, _report.History());
        Wait(_checkpoints.BeginSaveAsync(snapshot, CancellationToken.None));
        _reporter.Enter(RankPhase.Training);
    }

    private void Complete()
    {
        _reporter.Enter(RankPhase.Saving, "waiting for the last checkpoint");
        Wait(_checkpoints.CompleteAsync());
    }

    private void Committed(CheckpointManifest manifest)
    {
        _lastCommitted = (int)manifest.Step;
        _reporter.Log($"checkpoint of step {manifest.Step} committed");
    }

    private void Export()
    {
        _faults.Reach("Export", _step);
        string target = _job.Output.Path ?? _files.Model;
        var export = new ModelExport(Model, _loaded.TokenizerDirectory, ModelExport.Dtype(Model, _job));
        Export(target, () => Model.Lora is null
            ? export.WriteModelAsync(target, CancellationToken.None)
            : export.WriteAdapterAsync(target, _job.Model.Path, CancellationToken.None));
        if (_job.Output.Merge)
        {
            _faults.Reach("Merge", _step);
            string merged = Path.Combine(target, "merged");
            Export(merged, () => export.WriteModelAsync(merged, CancellationToken.None));
        }
    }

    /// <summary>An earlier attempt may have been killed between two exports, or after them.</summary>
    private void Export(string target, Func<Task> write)
    {
        _reporter.Enter(RankPhase.Exporting, $"writing {target}");
        if (Directory.Exists(target) && Directory.EnumerateFileSystemEntries(target).Any())
        {
            _reporter.Log($"{target} is there already: an earlier attempt wrote it");
            return;
        }

        Wait(write());
        _reporter.Log($"model written to {target}");
    }

    private void Restore(ICheckpointStore store, JobId id, string fingerprint)
    {
        var reader = new CheckpointReader(store, _time, finding => _reporter.Log($"warning: {finding.Message}"));
        CheckpointManifest? manifest = Wait(reader.FindNewestAsync(id.Value, fingerprint, CancellationToken.None));
        if (manifest is null && _job.Checkpoint.ResumeFrom is { } source)
        {
            reader = new CheckpointReader(CheckpointStore.Open(source, _time), _time, finding => _reporter.Log($"warning: {finding.Message}"));
            manifest = Wait(reader.FindNewestAsync(id.Value, fingerprint, CancellationToken.None))
                ?? throw new JobInputException($"checkpoint.resume_from: {source} has no good checkpoint; correct the address, or remove the key to start from step 0");
        }

        if (manifest is null)
        {
            _reporter.Log("starting from step 0");
            return;
        }

        byte[] history = Wait(TrainingState.RestoreAsync(_optimizer, reader, manifest, CancellationToken.None));
        File.WriteAllBytes(_files.Metrics, history);
        _step = (int)manifest.Step;
        _lastCommitted = _step;
        _cursor = manifest.Cursor;
        for (long sample = 0; sample < _cursor; sample++)
        {
            _tokens += _data.Train.Length(_order.At(sample));
        }

        _reporter.Log($"continuing from the checkpoint of step {manifest.Step}, written by attempt {manifest.Attempt}");
    }

    /// <summary>A store that another job began counts from that job's attempts: the number must exceed all before it.</summary>
    private int WritingAttempt(ICheckpointStore store, int attempt) =>
        Math.Max(attempt, Wait(new CheckpointReader(store, _time).NewestAttemptAsync(CancellationToken.None)) + 1);

    private CheckpointAuthor Author(JobId id, int attempt, string fingerprint) => new()
    {
        Job = id.Value,
        Fingerprint = fingerprint,
        Attempt = attempt,
        Seed = _job.Seed,
        Libraries = new Dictionary<string, string>
        {
            ["libtorch"] = loaded_version,
            ["dotnet"] = Environment.Version.ToString(),
        },
        Config = JsonSerializer.Deserialize<JsonElement>(JobConfigJson.Write(_job)),
    };

    /// <summary>Never zero, different for every micro-batch of a run.</summary>
    private ulong DropoutSeed(int step, int microBatch) =>
        ((ulong)(uint)_job.Seed << 32 | (uint)step) * 0x9E3779B97F4A7C15 + ((ulong)microBatch * 2) + 1 | 1;

    private static void Wait(Task task) => task.GetAwaiter().GetResult();

    private static T Wait<T>(Task<T> task) => task.GetAwaiter().GetResult();
}
