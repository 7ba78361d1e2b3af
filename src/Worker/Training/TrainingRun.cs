using System.Buffers.Binary;
using System.Text.Json;
using Trainer.Contracts;
using Trainer.Worker.Checkpoints;
using Trainer.Worker.Data;
using Trainer.Worker.Distributed;
using Trainer.Worker.Export;
using Trainer.Worker.Model;
using Trainer.Worker.Reports;
using TorchSharp;
using TorchSharp.Extras;
using static TorchSharp.torch;

namespace Trainer.Worker.Training;

/// <summary>
/// One attempt of a job on one rank: load, continue from the newest good checkpoint, train, evaluate, save, export. All of it
/// runs on the calling thread, because libtorch's thread count and our scopes belong to a thread. Ranks share the micro-batches
/// of a step and sum their gradients, so that each makes the same update; what leaves the process (figures, checkpoints,
/// exports) is rank 0's alone.
/// </summary>
public sealed class TrainingRun : IDisposable
{
    /// <summary>A checkpoint that is due waits so long for the one before.</summary>
    private static readonly TimeSpan s_saveWait = TimeSpan.FromSeconds(3);

    private readonly JobConfig _job;
    private readonly JobId _id;
    private readonly JobFiles _files;
    private readonly ICommunicator _ranks;
    private readonly RankReporter _reporter;
    private readonly TimeProvider _time;
    private readonly FaultInjection _faults;
    private readonly JobModel _loaded;
    private readonly PreparedData _data;
    private readonly Packer _packer;
    private readonly SampleOrder _order;
    private readonly AdamW _optimizer;
    private readonly LearningRate _schedule;
    private readonly int _steps;

    /// <summary>Rank 0 only, as are <see cref="_inventory"/>, <see cref="_report"/> and <see cref="_use"/>.</summary>
    private readonly CheckpointWriter? _checkpoints;
    private readonly CheckpointInventory? _inventory;
    private readonly RunReport? _report;
    private readonly MachineUse? _use;

    private int _step;
    private long _cursor;
    private long _tokens;
    private string _awaited = "";
    private volatile int _saving;
    private volatile int _lastCommitted;

    /// <param name="ranks">Stays the caller's.</param>
    /// <param name="threads">Of the CPU, unless the job says how many.</param>
    public TrainingRun(JobConfig job, JobId id, JobFiles files, int attempt, ICommunicator ranks, int threads, RankReporter reporter, TimeProvider time)
    {
        _job = job;
        _id = id;
        _files = files;
        _ranks = ranks;
        _reporter = reporter;
        _time = time;
        _faults = new FaultInjection(attempt, ranks.Rank);

        reporter.Enter(RankPhase.Loading, "loading the model");
        _loaded = JobModel.Load(job, reporter.Log);
        set_num_threads(job.Training.Threads ?? threads);
        reporter.Enter(RankPhase.Preparing, "tokenising the data");
        _data = PreparedData.Prepare(job.Data, job.Seed, _loaded.Tokenizer, _loaded.Template, files.Data);
        reporter.Log($"data: {_data.Train.Certificate}");
        _order = new SampleOrder(job.Seed, _data.Train.Count);
        _packer = new Packer(
            _data.Train, _order, checked(job.Training.GradientAccumulation * ranks.WorldSize), job.Training.BatchTokens, job.Training.BatchDocuments);
        _optimizer = new AdamW(Model.TrainedTensors(), job.Optimizer, sums: job.Training.GradientAccumulation * ranks.WorldSize > 1);

        TrainingFingerprint fingerprint = TrainingFingerprint.Of(job, _data.TrainedOn);
        ICheckpointStore store = CheckpointStore.Open(
            job.Checkpoint.Store ?? files.Checkpoints, time, trouble: problem => reporter.Trouble("checkpoint store", problem));
        ResumePoint point = ResumePoint.Find(job, id, fingerprint, store, ranks, time, reporter.Log);
        Restore(point, attempt);
        CheckpointManifest? restored = point.IsOwn ? point.Manifest : null;
        if (IsLead && restored is null && job.Output.Path is { } output && NewFolder.IsTaken(output))
        {
            // It was empty when the job was submitted.
            throw new JobInputException($"output.path: {output} is not empty any more; name another folder or empty it");
        }

        _steps = job.Training.Steps ?? _step + _packer.StepsFor(job.Training.Epochs ?? 1, _cursor);
        _schedule = new LearningRate(job.Optimizer, _steps);
        reporter.Update(report => report with { Steps = _steps, Step = _step });
        RequireAgreement();
        if (!IsLead)
        {
            return;
        }

        _report = new RunReport(files, reporter, time, _step, _steps);
        _use = new MachineUse(Model);
        _inventory = Wait(CheckpointInventory.ReadAsync(store, fingerprint.Hash, restored, time.GetUtcNow(), CancellationToken.None));
        _checkpoints = new CheckpointWriter(store, Author(id, WritingAttempt(store, attempt), fingerprint), new CheckpointWriterOptions
        {
            Keep = job.Checkpoint.Keep,
            Time = time,
            Committed = Committed,
            Removed = _inventory.Remove,
            Progress = reporter.Tick,
            Phase = phase =>
            {
                _faults.Reach(phase.ToString(), _saving);
                return ValueTask.CompletedTask;
            },
        });
        if (attempt > 1)
        {
            // One that was cut off may still train, and be ahead.
            Wait(_checkpoints.ClaimAsync(_step, CancellationToken.None));
        }
    }

    /// <summary>Step of the newest committed checkpoint; 0: none yet. Read from any thread.</summary>
    public int LastCommitted => _lastCommitted;

    /// <summary>What the store holds; null for all but rank 0. Read from any thread.</summary>
    public CheckpointReport? Checkpoints => _inventory?.Report;

    private QwenModel Model => _loaded.Model;

    private bool IsLead => _ranks.Rank == 0;

    /// <summary>Trains to the end, or until a rank is asked to stop: then all save and end after the same step.</summary>
    /// <param name="stop">What this rank is asked to end as: cancelled or interrupted; null: go on.</param>
    /// <returns>What all ranks end as.</returns>
    public RankOutcome Run(Func<RankOutcome?> stop)
    {
        _reporter.Enter(RankPhase.Training);
        RankOutcome? stopping = null;
        while (_step < _steps && stopping is null)
        {
            (StepFigures figures, stopping) = Advance(stop);
            if (IsLead)
            {
                Publish(figures, stopping is not null);
            }
            else
            {
                Follow(figures, stopping is not null);
            }
        }

        if (Model.Placement.Device.type == DeviceType.CUDA)
        {
            _reporter.Log(FormattableString.Invariant($"GPU memory: {Cuda.Memory(Model.Placement.Device).Peak / (double)(1L << 30):F2} GiB held at most"));
        }

        Finish(isWhole: _step == _steps);
        return _step == _steps ? RankOutcome.Succeeded : stopping!.Value;
    }

    public void Dispose()
    {
        _checkpoints?.DisposeAsync().AsTask().GetAwaiter().GetResult();
        _report?.Dispose();
        _optimizer.Dispose();
        _data.Dispose();
        _loaded.Dispose();
    }

    /// <summary>One optimizer step: this rank's micro-batches forward and backward, sum over the ranks, clip, update.</summary>
    private (StepFigures Figures, RankOutcome? Stop) Advance(Func<RankOutcome?> stop)
    {
        long begun = _time.GetTimestamp();
        StepBatches batches = _packer.Next(_cursor, _ranks.Rank, _ranks.WorldSize);
        double scale = 1.0 / batches.TrainedTokens;
        double loss = 0;
        for (int i = 0; i < batches.Batches.Count; i++)
        {
            if (batches.Batches[i].TrainedTokens > 0)
            {
                int microBatch = (i * _ranks.WorldSize) + _ranks.Rank;
                Begin($"micro-batch {microBatch}");
                loss += ForwardBackward(batches.Batches[i], scale, DropoutSeed(_step, microBatch));
                _reporter.Tick();
            }
        }

        Begin($"all-reduce of the loss{_awaited}");
        (loss, RankOutcome? stopping) = Sum(loss, stop());
        Begin("all-reduce of gradients");
        _optimizer.SumGradients(_ranks);
        Begin("update");
        double norm = _optimizer.GradientNorm();
        RequireFinite(loss, norm);
        double learningRate = _schedule.At(_step);
        _optimizer.Step(++_step, learningRate, GradientClip.Scale(norm, _job.Optimizer.MaxGradientNorm));
        _cursor = batches.NextCursor;
        _tokens += batches.Tokens;
        _checkpoints?.ThrowIfFailed();
        _faults.Reach("Step", _step);
        double seconds = _time.GetElapsedTime(begun).TotalSeconds;
        return (new StepFigures(_step, loss, norm, learningRate, _tokens, batches.Tokens / seconds, _use?.Of(batches.Batches, seconds)), stopping);
    }

    /// <summary>The loss over all ranks and what any of them is asked to end as, in one small collective.</summary>
    private (double Loss, RankOutcome? Stop) Sum(double loss, RankOutcome? stop)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor sums = tensor((double[])[loss, stop is RankOutcome.Cancelled ? 1 : 0, stop is RankOutcome.Interrupted ? 1 : 0]);
        _ranks.AllReduceSum([sums]);
        double[] summed = sums.data<double>().ToArray();
        return (summed[0], summed[1] > 0 ? RankOutcome.Cancelled : summed[2] > 0 ? RankOutcome.Interrupted : null);
    }

    /// <summary>Rank 0: what is due after a step.</summary>
    private void Publish(StepFigures figures, bool isLast)
    {
        double? evaluation = IsDue(_job.Evaluation.Every) ? Evaluate() : null;
        if (IsDue(_job.Training.ReportEvery) || evaluation is not null)
        {
            _report!.Step(figures, evaluation);
        }

        if (IsDue(_job.Samples.Every))
        {
            WriteSamples();
        }

        if (IsDue(_job.Checkpoint.Every) || isLast)
        {
            Save(evaluation, isLast || _step == _steps);
        }
    }

    /// <summary>The other ranks: they wait for rank 0 in the next step's first collective, and say so there.</summary>
    private void Follow(StepFigures figures, bool isLast)
    {
        _reporter.Update(report => report with { Step = figures.Step, Loss = figures.Loss, TokensPerSecond = figures.TokensPerSecond });
        string[] duties = [
            .. IsDue(_job.Evaluation.Every) && _data.Eval is not null ? ["evaluation"] : Array.Empty<string>(),
            .. IsDue(_job.Samples.Every) && _job.Samples.Prompts.Count > 0 ? ["samples"] : Array.Empty<string>(),
            .. IsDue(_job.Checkpoint.Every) || isLast ? ["checkpoint"] : Array.Empty<string>()];
        _awaited = duties.Length == 0 ? "" : $", after rank 0's {string.Join(" and ", duties)}";
    }

    /// <summary>Rank 0 commits the last checkpoint and exports; the others stay, so that none ends well when that fails.</summary>
    private void Finish(bool isWhole)
    {
        RequireAgreement();
        if (IsLead)
        {
            Complete();
            _report!.Complete();
            if (isWhole)
            {
                Export();
            }
        }

        Begin(IsLead ? "meeting the other ranks at the end" : $"waiting for rank 0's last checkpoint{(isWhole ? " and export" : "")}");
        _ranks.Barrier();
    }

    private void Begin(string activity) => _reporter.Begin($"step {Math.Min(_step + 1, _steps)}: {activity}");

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
        _reporter.Begin($"step {_step}: evaluation");
        double loss = Evaluation.Run(Model, data, _job.Training.BatchTokens, _job.Evaluation.MaxDocuments, _reporter.Tick);
        _reporter.Enter(RankPhase.Training);
        return loss;
    }

    /// <summary>Greedy or sampled continuations of the configured prompts, for a person to read.</summary>
    private void WriteSamples()
    {
        foreach (string prompt in _job.Samples.Prompts)
        {
            _reporter.Begin($"step {_step}: samples");
            int[] ids = _loaded.Template.Prompt(new Conversation(new Message("user", prompt)), _loaded.Tokenizer);
            var tokens = new List<int>();
            foreach (int token in TextGenerator.Continue(
                Model, ids, _job.Samples.MaxNewTokens, _job.Samples.Temperature, _loaded.Tokenizer.EndTokens, _job.Seed + _step))
            {
                tokens.Add(token);
                _reporter.Tick();
            }

            _report!.Sample(_step, prompt, _loaded.Tokenizer.Decode([.. tokens], skipSpecial: true));
        }
    }

    /// <param name="must">Else it is left out when the one before takes long: a store that is away does not stop the training.</param>
    private void Save(double? evaluation, bool must)
    {
        _reporter.Enter(RankPhase.Saving);
        _reporter.Begin($"step {_step}: checkpoint");
        // The save before comes first: two snapshots at once would need twice the memory.
        Task before = _checkpoints!.CompleteAsync();
        if (!must && Task.WaitAny([before], s_saveWait) < 0)
        {
            _reporter.Log($"no checkpoint of step {_step}: the one of step {_saving} is still being written");
            _reporter.Enter(RankPhase.Training);
            return;
        }

        Wait(before);
        _saving = _step;
        _faults.Reach("Snapshot", _step);
        CheckpointSnapshot snapshot = TrainingState.Capture(_optimizer, _step, _cursor, evaluation, _report!.History());
        Wait(_checkpoints.BeginSaveAsync(snapshot, CancellationToken.None));
        _reporter.Enter(RankPhase.Training);
    }

    private void Complete()
    {
        _reporter.Enter(RankPhase.Saving, "waiting for the last checkpoint");
        _reporter.Begin($"step {_step}: checkpoint");
        Wait(_checkpoints!.CompleteAsync());
    }

    private void Committed(CheckpointManifest manifest)
    {
        _inventory!.Add(manifest);
        _lastCommitted = (int)manifest.Step;
        _reporter.Log($"checkpoint of step {manifest.Step} committed");
    }

    private void Export()
    {
        _faults.Reach("Export", _step);
        string target = _job.Output.Path ?? _files.Model;
        var export = new ModelExport(Model, _loaded.TokenizerDirectory, ModelExport.Dtype(Model, _job), _reporter.Tick, _job.Data.System);
        Export(target, folder => Model.Lora is null
            ? export.WriteModelAsync(folder, CancellationToken.None)
            : export.WriteAdapterAsync(folder, _job.Model.Path, CancellationToken.None));
        if (_job.Output.Merge)
        {
            _faults.Reach("Merge", _step);
            string merged = Path.Combine(target, "merged");
            Export(merged, folder => export.WriteModelAsync(folder, CancellationToken.None));
        }
    }

    /// <summary>An earlier attempt may have been killed between two exports, or after them.</summary>
    private void Export(string target, Func<string, Task> write)
    {
        _reporter.Enter(RankPhase.Exporting, $"writing {target}");
        _reporter.Begin($"step {_step}: export");
        if (NewFolder.IsTaken(target))
        {
            if (!Wait(NewFolder.HoldsAsync(target, write)))
            {
                throw new JobInputException(
                    $"{target} holds something else than this training's model, and was left alone; write the model elsewhere: trainer export {_id} --out FOLDER");
            }

            _reporter.Log($"{target} holds the model already: an earlier attempt wrote it");
            return;
        }

        Wait(write(target));
        _reporter.Log($"model written to {target}");
    }

    private void Restore(ResumePoint point, int attempt)
    {
        if (point.Setback is { } setback)
        {
            _reporter.Update(report => report with { Setback = setback });
        }

        if (point.Manifest is not { } manifest)
        {
            _reporter.Log("starting from step 0" + (attempt > 1 ? $"; warning: {Wait(point.Reader.WhyNoneAsync(CancellationToken.None))}" : ""));
            return;
        }

        byte[] history = Wait(TrainingState.RestoreAsync(_optimizer, point.Reader, manifest, CancellationToken.None));
        if (IsLead)
        {
            StepLog.Own(_files.Metrics);
            File.WriteAllBytes(_files.Metrics, history);
        }

        _step = (int)manifest.Step;
        _lastCommitted = _step;
        _cursor = manifest.Cursor;
        for (long sample = 0; sample < _cursor; sample++)
        {
            _tokens += _data.Train.Length(_order.At(sample));
        }

        _reporter.Log($"continuing from the checkpoint of step {manifest.Step}, written by attempt {manifest.Attempt}");
    }

    /// <summary>
    /// Every rank initialised or read the state by itself, and made each update by itself: at the start and at the end it must be
    /// one and the same.
    /// </summary>
    private void RequireAgreement()
    {
        if (_ranks.WorldSize == 1)
        {
            return;
        }

        _reporter.Begin($"step {_step}: comparing the ranks' states");
        long checksum = TrainingState.Checksum(Model, _optimizer);
        Agreement.Require(
            _ranks,
            ("the training data", BinaryPrimitives.ReadInt64LittleEndian(Convert.FromHexString(_data.Train.Certificate.Fingerprint))),
            ("the step", _step),
            ("the cursor", _cursor),
            ("the number of steps", _steps),
            ("the checksum of weights and moments", checksum));
        _reporter.Log($"step {_step}: the {_ranks.WorldSize} ranks hold the same weights and moments (checksum {checksum:x16})");
    }

    /// <summary>A store that another job began counts from that job's attempts: the number must exceed all before it.</summary>
    private int WritingAttempt(ICheckpointStore store, int attempt) =>
        Math.Max(attempt, Wait(new CheckpointReader(store, _time).NewestAttemptAsync(CancellationToken.None)) + 1);

    private CheckpointAuthor Author(JobId id, int attempt, TrainingFingerprint fingerprint) => new()
    {
        Job = id.Value,
        Fingerprint = fingerprint.Hash,
        Inputs = fingerprint.Inputs,
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
