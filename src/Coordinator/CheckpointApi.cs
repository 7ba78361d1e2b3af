using System.Globalization;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Orleans;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>HTTP/JSON of a job's catalogue of checkpoints. Their content never passes through here.</summary>
internal sealed class CheckpointApi(IGrainFactory grains, JobApi jobs)
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
    }

    private async Task ListAsync(HttpContext context) => await AnswerAsync(context, await FindAsync(context));

    private async Task JudgeAsync(HttpContext context)
    {
        JobId job = await FindAsync(context);
        CheckpointVerdict verdict = await Http.ReadAsync(context, ContractsJson.Default.CheckpointVerdict);
        if (!int.TryParse((string?)context.Request.RouteValues["step"], NumberStyles.None, CultureInfo.InvariantCulture, out int step)
            || await grains.GetGrain<ICheckpointsGrain>(job.Value).Judge(step, verdict) is null)
        {
            throw new ApiException(StatusCodes.Status404NotFound,
                $"{job} has no checkpoint of step {context.Request.RouteValues["step"]} by attempt {verdict.Attempt.ToString(CultureInfo.InvariantCulture)}; see \"trainer checkpoints list\"");
        }
        await AnswerAsync(context, job);
    }

    private async Task<JobId> FindAsync(HttpContext context) => new((await jobs.FindAsync(context)).GetPrimaryKeyString());

    private async Task AnswerAsync(HttpContext context, JobId job)
    {
        CheckpointCatalogue catalogue = await grains.GetGrain<ICheckpointsGrain>(job.Value).Get();
        await Http.AnswerAsync(context, new CheckpointList { Job = job, Store = catalogue.Store, Checkpoints = catalogue.Entries }, ContractsJson.Default.CheckpointList);
    }
}
