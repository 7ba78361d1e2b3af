using System.Globalization;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.Logging;
using Orleans;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>HTTP/JSON of a job's catalogue of checkpoints. Their content passes through here only when a person downloads one.</summary>
internal sealed partial class CheckpointApi(IGrainFactory grains, JobApi jobs, CoordinatorOptions options, ILogger<CheckpointApi> log)
{
    public void Map(IEndpointRouteBuilder routes)
    {
        Role[] users = [Role.User];
        routes.MapGet("/v1/jobs/{job}/checkpoints", ListAsync)
            .WithMetadata(new Operation("What is known of a job's checkpoints.") { Roles = users, Answer = ContractsJson.Default.CheckpointList });
        routes.MapPost("/v1/jobs/{job}/checkpoints/{step}/verdict", JudgeAsync).WithMetadata(new Operation("Says what was found in all files of a checkpoint.")
        {
            Roles = users, Request = ContractsJson.Default.CheckpointVerdict, Answer = ContractsJson.Default.CheckpointList,
        });
        routes.MapGet("/v1/jobs/{job}/checkpoints/{step}/archive", DownloadAsync)
            .WithMetadata(new Operation("A checkpoint as a tar archive, verified while it is sent: one that is damaged breaks off.") { Roles = users, ContentType = "application/x-tar" });
    }

    private async Task ListAsync(HttpContext context) => await AnswerAsync(context, await FindAsync(context));

    private async Task JudgeAsync(HttpContext context)
    {
        JobId job = await FindAsync(context);
        CheckpointVerdict verdict = await Http.ReadAsync(context, ContractsJson.Default.CheckpointVerdict);
        if (StepOf(context) is not { } step || await grains.GetGrain<ICheckpointsGrain>(job.Value).Judge(step, verdict) is null)
        {
            throw new ApiException(StatusCodes.Status404NotFound,
                $"{job} has no checkpoint of step {context.Request.RouteValues["step"]} by attempt {verdict.Attempt.ToString(CultureInfo.InvariantCulture)}; see \"trainer checkpoints list\"");
        }
        await AnswerAsync(context, job);
    }

    private async Task DownloadAsync(HttpContext context)
    {
        JobId job = await FindAsync(context);
        CheckpointCatalogue catalogue = await grains.GetGrain<ICheckpointsGrain>(job.Value).Get();
        if (StepOf(context) is not { } step || catalogue.Store is not { } store || !catalogue.Entries.Any(entry => entry.Step == step && entry.Status is CheckpointStatus.Committed))
        {
            throw new ApiException(StatusCodes.Status404NotFound, $"{job} has no good checkpoint of step {context.Request.RouteValues["step"]}; see \"trainer checkpoints list\"");
        }
        if (options.OpenCheckpoint is not { } open)
        {
            throw new ApiException(StatusCodes.Status404NotFound, "this coordinator downloads no checkpoints; \"trainer checkpoints download\" does");
        }
        Func<Stream, CancellationToken, Task> write = await open(store, step, context.RequestAborted);
        context.Response.ContentType = "application/x-tar";
        context.Response.Headers.ContentDisposition = string.Create(CultureInfo.InvariantCulture, $"attachment; filename=\"{job}-step-{step}.tar\"");
        try
        {
            await write(context.Response.Body, context.RequestAborted);
        }
        catch (Exception error) when (error is not OperationCanceledException)
        {
            // So that nobody takes what has been sent for the whole.
            LogBroken(job, step, error);
            context.Abort();
        }
    }

    private static int? StepOf(HttpContext context) =>
        int.TryParse((string?)context.Request.RouteValues["step"], NumberStyles.None, CultureInfo.InvariantCulture, out int step) ? step : null;

    private async Task<JobId> FindAsync(HttpContext context) => new((await jobs.FindAsync(context)).GetPrimaryKeyString());

    private async Task AnswerAsync(HttpContext context, JobId job)
    {
        CheckpointCatalogue catalogue = await grains.GetGrain<ICheckpointsGrain>(job.Value).Get();
        await Http.AnswerAsync(context, new CheckpointList { Job = job, Store = catalogue.Store, Checkpoints = catalogue.Entries }, ContractsJson.Default.CheckpointList);
    }

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Job}: the download of the checkpoint of step {Step} broke off")]
    private partial void LogBroken(JobId job, int step, Exception error);
}
