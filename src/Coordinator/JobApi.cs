using System.Collections.Immutable;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.Hosting;
using Orleans;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>HTTP/JSON in front of the grains.</summary>
internal sealed class JobApi(IGrainFactory grains, TrainerHome home, IHostApplicationLifetime lifetime)
{
    public void Map(IEndpointRouteBuilder routes)
    {
        RouteGroupBuilder v1 = routes.MapGroup("/v1");
        v1.MapGet("/info", context => AnswerAsync(context, Info(), ContractsJson.Default.CoordinatorInfo));
        v1.MapPost("/stop", StopAsync);
        v1.MapPost("/jobs", SubmitAsync);
        v1.MapGet("/jobs", ListAsync);
        v1.MapGet("/jobs/{job}", GetAsync);
        v1.MapPost("/jobs/{job}/cancel", CancelAsync);
        v1.MapPost("/jobs/{job}/resume", ResumeAsync);
        v1.MapPost("/jobs/{job}/heartbeat", HeartbeatAsync);
    }

    private async Task StopAsync(HttpContext context)
    {
        await AnswerAsync(context, Info(), ContractsJson.Default.CoordinatorInfo);
        lifetime.StopApplication();
    }

    private async Task SubmitAsync(HttpContext context)
    {
        SubmitRequest request = await ReadAsync(context, ContractsJson.Default.SubmitRequest);
        // JSON is YAML: the rules of job files hold for whatever a client sends.
        JobConfig config = JobConfigFile.Parse(JobConfigJson.Write(request.Config), "/config.json");
        var spec = new JobSpec
        {
            Id = JobId.New(config.Name),
            Name = config.Name,
            Priority = config.Priority,
            Config = JobConfigJson.Write(config),
            Paused = request.Paused,
        };
        JobRecord? job = request.IdempotencyKey is { Length: > 0 } key
            ? await grains.GetGrain<ISubmissionGrain>(key).Submit(spec)
            : await grains.GetGrain<IJobGrain>(spec.Id.Value).Submit(spec);
        if (job is null)
        {
            throw new ApiException(StatusCodes.Status409Conflict,
                $"the key \"{request.IdempotencyKey}\" belongs to a job with another configuration; use another key, or the same file and options");
        }
        await AnswerAsync(context, job);
    }

    private async Task ListAsync(HttpContext context)
    {
        ImmutableArray<JobIndexEntry> entries = await IndexAsync();
        JobRecord?[] jobs = await Task.WhenAll(entries.Select(entry => Grain(entry.Id).Get()));
        await AnswerAsync(context, new JobList { Jobs = [.. jobs.OfType<JobRecord>().Select(job => JobView.Of(job, home))] }, ContractsJson.Default.JobList);
    }

    private async Task GetAsync(HttpContext context) => await AnswerAsync(context, await (await FindAsync(context)).Get());

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

    private async Task HeartbeatAsync(HttpContext context)
    {
        if (!JobId.TryParse((string?)context.Request.RouteValues["job"], out JobId id))
        {
            throw new ApiException(StatusCodes.Status404NotFound, "there is no such job");
        }
        RankReport report = await ReadAsync(context, ContractsJson.Default.RankReport);
        RankOrder order = await Grain(id).Heartbeat(report);
        await AnswerAsync(context, new RankReply { Order = order }, ContractsJson.Default.RankReply);
    }

    /// <summary>By id, by unique name, or by the unique beginning of an id.</summary>
    private async Task<IJobGrain> FindAsync(HttpContext context)
    {
        string text = (string)context.Request.RouteValues["job"]!;
        ImmutableArray<JobIndexEntry> entries = await IndexAsync();
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

    private Task<ImmutableArray<JobIndexEntry>> IndexAsync() => grains.GetGrain<IJobIndexGrain>("all").List();

    private IJobGrain Grain(JobId id) => grains.GetGrain<IJobGrain>(id.Value);

    private static CoordinatorInfo Info() =>
        new() { Version = typeof(JobApi).Assembly.GetName().Version!.ToString(3), Pid = Environment.ProcessId };

    private static async Task<T> ReadAsync<T>(HttpContext context, JsonTypeInfo<T> type) =>
        await JsonSerializer.DeserializeAsync(context.Request.Body, type, context.RequestAborted)
            ?? throw new ApiException(StatusCodes.Status400BadRequest, "the body is null");

    private Task AnswerAsync(HttpContext context, JobRecord? job) => job is null
        ? throw new ApiException(StatusCodes.Status404NotFound, "there is no such job; see \"trainer list\"")
        : AnswerAsync(context, JobView.Of(job, home), ContractsJson.Default.JobView);

    private static Task AnswerAsync<T>(HttpContext context, T answer, JsonTypeInfo<T> type) =>
        context.Response.WriteAsJsonAsync(answer, type, cancellationToken: context.RequestAborted);
}
