using System.Collections.Immutable;
using System.Diagnostics;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.Hosting;
using Orleans;
using Trainer.Contracts;
using Trainer.Coordinator.Telemetry;

namespace Trainer.Coordinator;

/// <summary>HTTP/JSON in front of the grains.</summary>
internal sealed class JobApi(IGrainFactory grains, TrainerHome home, IHostApplicationLifetime lifetime)
{
    private const int MaxKey = 200;

    public static string Version { get; } = typeof(JobApi).Assembly.GetName().Version!.ToString(3);

    public void Map(IEndpointRouteBuilder routes)
    {
        Role[] users = [Role.User];
        routes.MapGet("/v1/info", context => Http.AnswerAsync(context, Info(), ContractsJson.Default.CoordinatorInfo))
            .WithMetadata(new Operation("Which coordinator answers.") { Roles = [Role.User, Role.Worker], Answer = ContractsJson.Default.CoordinatorInfo });
        routes.MapPost("/v1/stop", StopAsync)
            .WithMetadata(new Operation("Ends the coordinator; ranks go on.") { Answer = ContractsJson.Default.CoordinatorInfo });
        routes.MapPost("/v1/jobs", SubmitAsync).WithMetadata(new Operation("Submits a job.")
        {
            Roles = users, Request = ContractsJson.Default.SubmitRequest, Answer = ContractsJson.Default.JobView,
        });
        routes.MapGet("/v1/jobs/{job}", GetAsync).WithMetadata(OfJob("One job, by id, unique name, or unique beginning of an id."));
        routes.MapGet("/v1/jobs/{job}/config", ConfigAsync)
            .WithMetadata(new Operation("Everything that decides what a job trains, defaults filled in.") { Roles = users, Schema = typeof(JobConfig) });
        routes.MapGet("/v1/jobs/{job}/ranks", RanksAsync)
            .WithMetadata(new Operation("The ranks of a job's newest attempt: where they are, what they do, what they take.") { Roles = users, Answer = ContractsJson.Default.RankList });
        routes.MapPost("/v1/jobs/{job}/cancel", CancelAsync).WithMetadata(OfJob("Ends a job after a last checkpoint."));
        routes.MapPost("/v1/jobs/{job}/pause", PauseAsync).WithMetadata(OfJob("Stops a job after a checkpoint, until it is resumed."));
        routes.MapPost("/v1/jobs/{job}/resume", ResumeAsync).WithMetadata(OfJob("Goes on with a paused, failed or cancelled job, or with one that is stopping once it has stopped."));
        routes.MapPost("/v1/jobs/{job}/priority", PriorityAsync)
            .WithMetadata(OfJob("Sets a job's priority.") with { Request = ContractsJson.Default.PriorityRequest });

        Operation OfJob(string summary) => new(summary) { Roles = users, Answer = ContractsJson.Default.JobView };
    }

    private async Task StopAsync(HttpContext context)
    {
        await Http.AnswerAsync(context, Info(), ContractsJson.Default.CoordinatorInfo);
        lifetime.StopApplication();
    }

    private async Task SubmitAsync(HttpContext context)
    {
        SubmitRequest request = await Http.ReadAsync(context, ContractsJson.Default.SubmitRequest);
        if (request.IdempotencyKey is { } given && (given.Length is 0 or > MaxKey || given.Any(letter => letter is < ' ' or > '~')))
        {
            throw new ApiException(StatusCodes.Status400BadRequest, $"an idempotency key has 1 to {MaxKey} printable ASCII characters");
        }
        // JSON is YAML: the rules of job files hold for whatever a client sends.
        JobConfig config = JobConfigFile.Receive(request.Config);
        string project = Access.Of(context).Project ?? "default";
        (Activity? span, string trace) = JobTelemetry.Submitting(context.Request.Headers.TraceParent, context.Request.Headers.TraceState);
        using Activity? submitting = span;
        var spec = new JobSpec
        {
            Id = JobId.New(config.Name),
            Name = config.Name,
            Priority = config.Priority,
            Config = JobConfigJson.Write(config),
            Paused = request.Paused,
            Project = project,
            Pool = config.Resources.Pool,
            Ranks = config.Resources.Ranks,
            TraceParent = trace,
            Submission = Guid.NewGuid().ToString("N"),
        };
        JobRecord? job = request.IdempotencyKey is { } key
            ? await grains.GetGrain<ISubmissionGrain>($"{project}/{key}").Submit(spec)
            : await SubmitNewAsync(spec);
        if (job is null)
        {
            throw new ApiException(StatusCodes.Status409Conflict,
                $"the key \"{request.IdempotencyKey}\" belongs to a job with another configuration; use another key, or the same file and options");
        }
        if (submitting is not null)
        {
            JobTelemetry.Describe(submitting, job.Spec);
        }
        await AnswerAsync(context, job);
    }

    /// <summary>Every job, in order of submission.</summary>
    public async Task ListAsync(HttpContext context)
    {
        JobIndexEntry[] entries = await IndexAsync(context);
        JobRecord?[] jobs = await Task.WhenAll(entries.Select(entry => Grain(entry.Id).Get()));
        await Http.AnswerAsync(context, new JobList { Jobs = [.. jobs.OfType<JobRecord>().Select(job => JobView.Of(job, home))] }, ContractsJson.Default.JobList);
    }

    private async Task GetAsync(HttpContext context) => await AnswerAsync(context, await (await FindAsync(context)).Get());

    private async Task ConfigAsync(HttpContext context)
    {
        JobRecord job = await (await FindAsync(context)).Get() ?? throw NotThere();
        context.Response.ContentType = "application/json";
        await context.Response.WriteAsync(job.Spec.Config, context.RequestAborted);
    }

    private async Task RanksAsync(HttpContext context)
    {
        JobRecord job = await (await FindAsync(context)).Get() ?? throw NotThere();
        NodeSight[] sights = await Task.WhenAll(job.Nodes.Distinct().Select(node => grains.GetGrain<INodeGrain>(node).Look(job.Id)));
        Dictionary<RankName, RankState> states = sights.SelectMany(sight => sight.Ranks).ToDictionary(state => state.Name);
        await Http.AnswerAsync(context, new RankList
        {
            Job = job.Id,
            Attempt = job.Attempt,
            Ranks = [.. job.Nodes.Select((node, rank) => View(rank, node, states.GetValueOrDefault(new RankName(job.Id, job.Attempt, rank))))],
        }, ContractsJson.Default.RankList);
    }

    private static RankView View(int rank, string node, RankState? state) => new()
    {
        Rank = rank,
        Node = node,
        Alive = state?.Alive == true,
        Phase = state?.Report?.Phase,
        Step = state?.Report?.Step ?? 0,
        Activity = state?.Alive == true ? state.Report?.Activity : null,
        SilentSeconds = state?.Alive == true ? state.SilentSeconds : null,
        Use = state?.Use,
        Ending = state?.Result is { } result ? result.Message ?? Spelling.Of(result.Outcome) : state?.LastWords,
    };

    private async Task CancelAsync(HttpContext context) => await AnswerAsync(context, await (await FindAsync(context)).Cancel());

    private async Task ResumeAsync(HttpContext context)
    {
        JobRecord? job = await (await FindAsync(context)).Resume();
        if (job is { Status: JobStatus.Succeeded })
        {
            throw new ApiException(StatusCodes.Status409Conflict, $"{job.Id} has succeeded, so there is nothing to resume; to train on, submit a job whose model.path is its exported model");
        }
        await AnswerAsync(context, job);
    }

    private async Task PauseAsync(HttpContext context)
    {
        JobRecord? job = await (await FindAsync(context)).Pause();
        if (job is { } ended && ended.Status.IsTerminal())
        {
            throw new ApiException(StatusCodes.Status409Conflict, $"{ended.Id} is {Spelling.Of(ended.Status)} already, so there is nothing to pause");
        }
        await AnswerAsync(context, job);
    }

    private async Task PriorityAsync(HttpContext context)
    {
        PriorityRequest request = await Http.ReadAsync(context, ContractsJson.Default.PriorityRequest);
        if (request.Priority is < -1000 or > 1000)
        {
            throw new ApiException(StatusCodes.Status400BadRequest, "priority: -1000 to 1000");
        }
        await AnswerAsync(context, await (await FindAsync(context)).SetPriority(request.Priority));
    }

    /// <summary>Thousands of jobs may have one name, so that chance alone does not tell their ids apart.</summary>
    private async Task<JobRecord> SubmitNewAsync(JobSpec spec)
    {
        JobRecord? job;
        while ((job = await Grain(spec.Id).Submit(spec)) is null)
        {
            spec = spec with { Id = JobId.New(spec.Name) };
        }
        return job;
    }

    /// <summary>By id, by unique name, or by the unique beginning of an id.</summary>
    public async Task<IJobGrain> FindAsync(HttpContext context)
    {
        string text = ((string)context.Request.RouteValues["job"]!).Replace("%2F", "/", StringComparison.OrdinalIgnoreCase);  // which Kestrel leaves
        if (JobId.TryParse(text, out JobId id) && Access.Of(context) is var caller
            && (await grains.GetGrain<IJobIndexGrain>(JobIndexShards.Of(id)).List()).Any(entry => entry.Id == id && caller.MaySee(entry.Project)))
        {
            return Grain(id);
        }
        JobIndexEntry[] entries = await IndexAsync(context);
        Func<JobIndexEntry, bool>[] ways = [
            entry => entry.Id.Value == text,
            entry => entry.Name == text,
            entry => entry.Id.Value.StartsWith(text, StringComparison.Ordinal)];
        foreach (Func<JobIndexEntry, bool> way in ways)
        {
            JobIndexEntry[] found = [.. entries.Where(way)];
            if (found.Length == 1)
            {
                return Grain(found[0].Id);
            }
            if (found.Length > 1)
            {
                throw new ApiException(StatusCodes.Status409Conflict,
                    $"\"{text}\" names {found.Length} jobs ({string.Join(", ", found.TakeLast(5).Select(entry => entry.Id.Value))}); use the id");
            }
        }
        string cure = Spelling.Nearest(text, entries.Select(entry => entry.Id.Value).Concat(entries.Select(entry => entry.Name))) is { } near
            ? $"did you mean {near}?"
            : "see \"trainer list\"";
        throw new ApiException(StatusCodes.Status404NotFound, $"there is no job \"{text}\"; {cure}");
    }

    /// <summary>What the caller may see, in order of submission.</summary>
    private async Task<JobIndexEntry[]> IndexAsync(HttpContext context)
    {
        Caller caller = Access.Of(context);
        ImmutableArray<JobIndexEntry>[] shards = await Task.WhenAll(JobIndexShards.All.Select(shard => grains.GetGrain<IJobIndexGrain>(shard).List()));
        return [.. shards.SelectMany(shard => shard).Where(entry => caller.MaySee(entry.Project))
            .OrderBy(entry => entry.SubmittedAt).ThenBy(entry => entry.Id.Value, StringComparer.Ordinal)];
    }

    private IJobGrain Grain(JobId id) => grains.GetGrain<IJobGrain>(id.Value);

    private static CoordinatorInfo Info() => new() { Version = Version, Pid = Environment.ProcessId };

    private Task AnswerAsync(HttpContext context, JobRecord? job) => job is null
        ? throw NotThere()
        : Http.AnswerAsync(context, JobView.Of(job, home), ContractsJson.Default.JobView);

    private static ApiException NotThere() => new(StatusCodes.Status404NotFound, "there is no such job; see \"trainer list\"");
}
