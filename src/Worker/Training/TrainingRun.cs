using System.Text.Json;
using Trainer.Contracts;
using Trainer.Worker.Checkpoints;
using Trainer.Worker.Data;
using Trainer.Worker.Export;
using Trainer.Worker.Model;
using Trainer.Worker.Reports;
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
    private readonly MetricsLog _metrics;
    private readonly TensorBoardWriter _tensorBoard;
    private readonly int _steps;
    private readonly long _started;

    private int _step;
    private long _cursor;
    private long _tokens;

    public TrainingRun(JobConfig job, JobId id, JobFiles files, int attempt, RankReporter reporter, TimeProvider time)
    {
        _job = job;
        _files = files;
        _reporter = reporter;
        _time = time;
        _faults = new FaultInjection(attempt);
        _started = time.GetTimestamp();
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
        _metrics = MetricsLog.Open(files.Metrics, _step);
        _tensorBoard = new TensorBoardWriter(files.TensorBoard, time, _step > 0 ? _step : null);
        _checkpoints = new CheckpointWriter(store, Author(id, attempt, fingerprint), new CheckpointWriterOptions
        {
            Keep = job.Checkpoint.Keep,
            Time = time,
            Committed = manifest => Committed(manifest),
            Phase = phase =>
            {
                _faults.Reach(phase.ToString(), _step);
                return ValueTask.CompletedTask;
            },
        });
        reporter.Update(report => report with { Steps = _steps, Step = _step });
    }

    private QwenModel Model => _loaded.Model;

    /// <summary>Trains to the end, or until <paramref name="stop"/> asks for a last checkpoint.</summary>
    /// <returns>Whether the end was reached.</returns>
    public bool Run(CancellationToken stop)
    {
        _reporter.Enter(RankPhase.Training);
        while (_step < _steps)
        {
            Advance();
            double? evaluation = IsDue(_job.Evaluation.Every) ? Evaluate() : null;
            if (_step % _job.Training.ReportEvery == 0 || evaluation is not null || _step == _steps)
            {
                Report(evaluation);
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
        _metrics.Dispose();
        _tensorBoard.Dispose();
        _optimizer.Dispose();
        _data.Dispose();
        _loaded.Dispose();
    }

    // The last step's figures; the loop reports them when a report is due.
    private double _loss, _gradientNorm, _learningRate, _tokensPerSecond;

    /// <summary>One optimizer step: every micro-batch forward and backward, clip, update.</summary>
    private void Advance()
    {
        long begun = _time.GetTimestamp();
        StepBatches batches = _packer.Next(_cursor);
        double scale = 1.0 / batches.TrainedTokens;
        _loss = 0;
        for (int i = 0; i < batches.Batches.Count; i++)
        {
            if (batches.Batches[i].TrainedTokens > 0)
            {
                _loss += ForwardBackward(batches.Batches[i], scale, DropoutSeed(_step, i));
            }
        }

        _gradientNorm = _optimizer.GradientNorm();
        RequireFinite();
        _learningRate = _schedule.At(_step);
        _optimizer.Step(++_step, _learningRate, GradientClip.Scale(_gradientNorm, _job.Optimizer.MaxGradientNorm));
        _cursor = batches.NextCursor;
        int tokens = batches.Batches.Sum(batch => batch.Tokens.Length);
        _tokens += tokens;
        _tokensPerSecond = tokens / _time.GetElapsedTime(begun).TotalSeconds;
        _checkpoints.ThrowIfFailed();
        _faults.Reach("Step", _step);
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
    private void RequireFinite()
    {
        if (!double.IsFinite(_loss) || !double.IsFinite(_gradientNorm))
        {
            throw new JobInputException($"step {_step + 1}: the loss is {_loss} and the gradient norm {_gradientNorm}"
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

    private void Report(double? evaluation)
    {
        double seconds = _time.GetElapsedTime(_started).TotalSeconds;
        _metrics.Append(new MetricsRecord
        {
            Step = _step,
            Loss = _loss,
            EvalLoss = evaluation,
            LearningRate = _learningRate,
            GradNorm = _gradientNorm,
            Tokens = _tokens,
            TokensPerSecond = _tokensPerSecond,
            Seconds = seconds,
            Time = _time.GetUtcNow(),
        });
        _tensorBoard.Scalar("train/loss", _step, (float)_loss);
        _tensorBoard.Scalar("train/learning_rate", _step, (float)_learningRate);
        _tensorBoard.Scalar("train/grad_norm", _step, (float)_gradientNorm);
        _tensorBoard.Scalar("train/tokens_per_second", _step, (float)_tokensPerSecond);
        if (evaluation is { } value)
        {
            _tensorBoard.Scalar("eval/loss", _step, (float)value);
        }

        double stepSeconds = _reporter.Report.Step > 0 && _step > _firstStep + 1
            ? _time.GetElapsedTime(_firstStepAt).TotalSeconds / (_step - _firstStep)
            : 0;
        if (_firstStepAt == 0)
        {
            (_firstStep, _firstStepAt) = (_step, _time.GetTimestamp());
        }

        double? eta = stepSeconds > 0 ? stepSeconds * (_steps - _step) : null;
        _reporter.Update(report => report with
        {
            Step = _step,
            Loss = _loss,
            EvalLoss = evaluation ?? report.EvalLoss,
            TokensPerSecond = _tokensPerSecond,
            EtaSeconds = eta,
        });
        _reporter.Log(FormattableString.Invariant(
            $"step {_step}/{_steps} loss {_loss:F4} norm {_gradientNorm:F3} lr {_learningRate:E2} tok/s {_tokensPerSecond:F0}")
            + (evaluation is { } loss ? FormattableString.Invariant($" eval {loss:F4}") : "")
            + (eta is { } left ? $" eta {TimeSpan.FromSeconds(left):hh\\:mm\\:ss}" : ""));
    }

    private int _firstStep;
    private long _firstStepAt;

    /// <summary>Greedy or sampled continuations of the configured prompts, for a person to read.</summary>
    private void WriteSamples()
    {
        foreach (string prompt in _job.Samples.Prompts)
        {
            int[] ids = _loaded.Template.Prompt(new Conversation(new Message("user", prompt)), _loaded.Tokenizer);
            int[] tokens = [.. TextGenerator.Continue(
                Model, ids, _job.Samples.MaxNewTokens, _job.Samples.Temperature, _loaded.Tokenizer.EndTokens, _job.Seed + _step)];
            string text = _loaded.Tokenizer.Decode(tokens, skipSpecial: true);
            string line = JsonSerializer.Serialize(new { step = _step, prompt, text });
            File.AppendAllText(_files.Samples, line + "\n");
            _tensorBoard.Text($"samples/{prompt}", _step, text);
            _reporter.Log($"sample at step {_step}: {prompt} -> {text.ReplaceLineEndings(" ")}");
        }
    }

    private void Save(double? evaluation)
    {
        _reporter.Enter(RankPhase.Saving);
        _faults.Reach("Snapshot", _step);
        CheckpointSnapshot snapshot = TrainingState.Capture(_optimizer, _step, _cursor, evaluation, File.ReadAllBytes(_files.Metrics));
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

    private volatile int _lastCommitted;

    /// <summary>Step of the newest committed checkpoint of this attempt; 0: none yet.</summary>
    public int LastCommitted => _lastCommitted;

    private void Export()
    {
        _faults.Reach("Export", _step);
        string target = _job.Output.Path ?? _files.Model;
        _reporter.Enter(RankPhase.Exporting, $"writing {target}");
        if (Directory.Exists(target) && Directory.EnumerateFileSystemEntries(target).Any())
        {
            _reporter.Log($"{target} is there already: an earlier attempt wrote it");
            return;
        }

        ScalarType dtype = _job.Model.Path is null ? Model.Placement.Dtype : ModelExport.StatedDtype(Model.Config);
        var export = new ModelExport(Model, _loaded.TokenizerDirectory, dtype);
        Wait(Model.Lora is null
            ? export.WriteModelAsync(target, CancellationToken.None)
            : export.WriteAdapterAsync(target, _job.Model.Path, CancellationToken.None));
        if (_job.Output.Merge)
        {
            Wait(export.WriteModelAsync(Path.Combine(target, "merged"), CancellationToken.None));
        }

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
                ?? throw new JobInputException($"checkpoint.resume_from: {source} has no good checkpoint");
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
