using System.Globalization;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Orleans;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>The metrics of a job, thinned out for charts. What was read last is kept: pages of one job ask for the same.</summary>
internal sealed class SeriesApi(JobApi jobs, LogArchive archive, TrainerHome home)
{
    private const int MostPoints = 4000;

    /// <summary>Of all jobs together.</summary>
    private const long MostNumbers = 4_000_000;

    private readonly Lock _lock = new();

    /// <summary>What was asked for last comes last.</summary>
    private readonly List<(JobId Job, MetricsColumns Columns)> _kept = [];

    public void Map(IEndpointRouteBuilder routes) =>
        routes.MapGet("/v1/jobs/{job}/series", AnswerAsync).WithMetadata(new Operation("The metrics of a job in few points, each with the mean and the extremes of its steps.")
        {
            Roles = [Role.User], Answer = ContractsJson.Default.MetricsSeries,
            Query = new Dictionary<string, string>
            {
                ["points"] = $"At most; 800 when absent, {MostPoints} is the most.",
                ["from"] = "First step; the first there is when absent.",
                ["to"] = "Last step; the last there is when absent.",
            },
        });

    private async Task AnswerAsync(HttpContext context)
    {
        int points = (int)Number(context, "points", 800, 1, MostPoints);
        long from = Number(context, "from", 0, 0, long.MaxValue - 1), to = Number(context, "to", long.MaxValue, 0, long.MaxValue - 1);
        IJobGrain grain = await jobs.FindAsync(context);
        var job = new JobId(grain.GetPrimaryKeyString());
        await archive.RestoreMetricsAsync(await grain.Get(), context.RequestAborted);
        MetricsSeries series = Columns(job).Thin(job, from, to, points);
        Forget();
        await Http.AnswerCompressedAsync(context, series, ContractsJson.OneLine.MetricsSeries);
    }

    private MetricsColumns Columns(JobId job)
    {
        lock (_lock)
        {
            int at = _kept.FindIndex(kept => kept.Job == job);
            MetricsColumns columns = at >= 0 ? _kept[at].Columns : new MetricsColumns(home.Job(job).Metrics);
            if (at >= 0)
            {
                _kept.RemoveAt(at);
            }
            _kept.Add((job, columns));
            return columns;
        }
    }

    private void Forget()
    {
        lock (_lock)
        {
            long numbers = _kept.Sum(kept => kept.Columns.Size);
            while (_kept.Count > 1 && numbers > MostNumbers)
            {
                numbers -= _kept[0].Columns.Size;
                _kept.RemoveAt(0);
            }
        }
    }

    /// <exception cref="ApiException">It is there and no number of that range.</exception>
    private static long Number(HttpContext context, string key, long absent, long least, long most) => context.Request.Query[key] switch
    {
        [] => absent,
        [var text] when long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out long number) && number >= least && number <= most => number,
        _ => throw new ApiException(StatusCodes.Status400BadRequest, $"{key}: a number from {least} to {most} is expected"),
    };
}
