using System.Runtime.InteropServices;
using Trainer.Contracts;
using Trainer.Worker.Agent;
using Trainer.Worker.Checkpoints;
using Trainer.Worker.Distributed;
using Trainer.Worker.Model;
using Trainer.Worker.Reports;
using TorchSharp;

namespace Trainer.Worker.Training;

/// <summary>
/// The life of a rank process: trains in the calling thread while heartbeats go to the coordinator and orders come back.
/// A coordinator that is away changes nothing. The last act is the result file.
/// </summary>
public sealed class RankProcess : IDisposable
{
    private static readonly TimeSpan s_period = TimeSpan.FromSeconds(1);

    /// <summary>While the ranks look for each other.</summary>
    private static readonly TimeSpan s_shortPeriod = TimeSpan.FromMilliseconds(200);

    private readonly RankPlace _place;
    private readonly JobId _id;
    private readonly JobFiles _files;
    private readonly Rendezvous _rendezvous;
    private readonly TimeProvider _time = TimeProvider.System;
    private readonly RankReporter _reporter;
    private readonly CoordinatorClient _coordinator;
    private readonly AgentWatch _agent;
    private readonly CancellationTokenSource _stop = new();
    private readonly CancellationTokenSource _ended = new();
    private volatile bool _ordered;
    private bool _left;
    private TrainingRun? _run;

    private RankProcess(RankPlace place)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(place.WorldSize, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan((uint)place.Rank, (uint)place.WorldSize - 1, nameof(place));
        _place = place;
        string name = Path.GetFileName(Path.GetFullPath(place.JobDirectory).TrimEnd('/'));
        _id = JobId.TryParse(name, out JobId id) ? id : throw new JobInputException($"{place.JobDirectory}: not a job's folder");
        _files = new JobFiles(place.JobDirectory);
        _rendezvous = new Rendezvous(place.Rank, place.WorldSize, place.Host);
        _reporter = new RankReporter(place.Attempt, place.Rank, _time);
        _coordinator = new CoordinatorClient(place.Socket, TimeSpan.FromSeconds(10));
        _agent = new AgentWatch(place.Socket, _time);
    }

    /// <returns>0 after success or an ordered stop, 1 after a failure.</returns>
    public static int Run(RankPlace place)
    {
        using var process = new RankProcess(place);
        return process.Run();
    }

    public void Dispose()
    {
        _coordinator.Dispose();
        _reporter.Dispose();
        _stop.Dispose();
        _ended.Dispose();
    }

    private int Run()
    {
        using var terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, context =>
        {
            context.Cancel = true;
            _reporter.Log("SIGTERM: saving a checkpoint, then ending");
            _stop.Cancel();
        });
        Directory.CreateDirectory(_files.Attempt(_place.Attempt).Directory);
        Task heartbeats = Task.Run(HeartbeatAsync);
        RankResult result;
        try
        {
            result = Train();
        }
        catch (AttemptReplacedException e)
        {
            _reporter.Log($"{e.Message}; ending without a result");
            return 1;
        }

        Leave(result);
        _reporter.Log($"{(result.Outcome is RankOutcome.Cancelled ? "stopped as ordered" : result.Outcome.ToString().ToLowerInvariant())} at step {result.Step}{(result.Message is null ? "" : ": " + result.Message)}");
        _ended.Cancel();
        heartbeats.GetAwaiter().GetResult();
        return result.Outcome == RankOutcome.Failed ? 1 : 0;
    }

    private RankResult Train()
    {
        try
        {
            _reporter.Log($"attempt {_place.Attempt} of {_id}, process {Environment.ProcessId}{(_place.WorldSize > 1 ? $", {_place}" : "")}");
            JobConfig job = JobConfigJson.Load(_files.Config);
            using ICommunicator ranks = Meet(ComputeDevice.Choose(job.Model.Device));
            using (_run = new TrainingRun(job, _id, _files, _place.Attempt, ranks, _place.Threads, _reporter, _time))
            {
                return Result(_run.Run(() => _stop.IsCancellationRequested ? _ordered ? RankOutcome.Cancelled : RankOutcome.Interrupted : null), null, null);
            }
        }
        catch (CollectiveException e)
        {
            Console.Error.WriteLine(e);
            return Result(RankOutcome.Failed, FailureClass.Infrastructure, $"{e.Message}, at {_reporter.Report.Activity}") with { LostOthers = true };
        }
        catch (JobInputException e)
        {
            return Result(RankOutcome.Failed, FailureClass.User, e.Message);
        }
        catch (TorchException e)
        {
            bool memory = e.Message.Contains("out of memory", StringComparison.OrdinalIgnoreCase) || e.IsOutOfMemory;
            bool gpu = e.Message.Contains("CUDA error", StringComparison.Ordinal);
            Console.Error.WriteLine(e);
            return Result(RankOutcome.Failed, memory ? FailureClass.User : gpu ? FailureClass.Infrastructure : FailureClass.Unknown,
                memory ? $"{e.Message}; lower training.batch_tokens (and raise gradient_accumulation), or set model.recompute: true" : e.Message);
        }
        catch (Exception e) when (e is IOException or StoreException or UnauthorizedAccessException)
        {
            Console.Error.WriteLine(e);
            return Result(RankOutcome.Failed, FailureClass.Infrastructure, FullDisk.Tell(e));
        }
        catch (Exception e) when (e is not AttemptReplacedException)
        {
            Console.Error.WriteLine(e);
            return Result(RankOutcome.Failed, FailureClass.Unknown, $"{e.GetType().Name}: {e.Message}");
        }
    }

    private ICommunicator Meet(torch.Device device)
    {
        _reporter.Begin("rendezvous");
        return _rendezvous.Join(device, endpoint => _reporter.Update(report => report with { Endpoint = endpoint }));
    }

    private RankResult Result(RankOutcome outcome, FailureClass? failure, string? message) => new()
    {
        Outcome = outcome,
        FailureClass = failure,
        Message = message,
        Step = _reporter.Report.Step,
        Steps = _reporter.Report.Steps,
        Loss = _reporter.Report.Loss,
        EvalLoss = _reporter.Report.EvalLoss,
        LastCheckpointStep = LastCommitted,
        Checkpoints = _run?.Checkpoints,
        Setback = _reporter.Report.Setback,
    };

    /// <summary>The first result is the cause: while a process exits, its training may yet fail for want of its peers.</summary>
    private void Leave(RankResult result)
    {
        if (!Interlocked.Exchange(ref _left, true))
        {
            result.Write(_files.Attempt(_place.Attempt).ResultOf(_place.Rank));
        }
    }

    private int? LastCommitted => _run?.LastCommitted is > 0 and int step ? step : null;

    private async Task HeartbeatAsync()
    {
        bool reached = true;
        while (!_ended.IsCancellationRequested)
        {
            _reporter.Flush();
            try
            {
                RankReport report = _reporter.Report with { LastCheckpointStep = LastCommitted, Checkpoints = _run?.Checkpoints };
                RankReply reply = await _coordinator.HeartbeatAsync(_id, report, _ended.Token);
                if (!reached)
                {
                    _reporter.Log("the coordinator is back");
                }

                reached = true;
                _agent.Hear();
                if (reply.Rendezvous is { } endpoint)
                {
                    _rendezvous.Tell(endpoint);
                }

                Obey(reply.Order);
            }
            catch (CoordinatorException e)
            {
                if (reached)
                {
                    _reporter.Log($"{e.Message}; training goes on");
                }

                reached = false;
                if (_agent.IsGone)
                {
                    EndAsOrphan();
                }
            }
            catch (OperationCanceledException)
            {
                return;
            }

            await Task.Delay(_rendezvous.IsPending ? s_shortPeriod : s_period, _time, _ended.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    /// <summary>Nobody would ever stop this process, and another node may have the job by now: what is committed is committed.</summary>
    private void EndAsOrphan()
    {
        RankResult result = Result(RankOutcome.Failed, FailureClass.Infrastructure, "its agent is gone");
        _reporter.Log($"{result.Message}: ending at once");
        Leave(result);
        Environment.Exit(1);
    }

    private void Obey(RankOrder order)
    {
        if (order == RankOrder.Fenced)
        {
            _reporter.Log("another attempt owns this job: ending at once");
            Environment.Exit(1);
        }

        if (order == RankOrder.Stop && !_ordered)
        {
            _ordered = true;
            // Of several ranks none goes alone: they agree in their first step.
            if (_place.WorldSize == 1 && _reporter.Report.Phase is (RankPhase.Loading or RankPhase.Preparing))
            {
                _reporter.Log("ordered to stop before the first step: ending at once");
                Leave(Result(RankOutcome.Cancelled, null, null));
                Environment.Exit(0);
            }

            _reporter.Log("ordered to stop: saving a checkpoint, then ending");
            _stop.Cancel();
        }
    }
}
