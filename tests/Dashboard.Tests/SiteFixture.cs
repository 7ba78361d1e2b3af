using Trainer.Contracts;

namespace Dashboard.Tests;

/// <summary>A coordinator that most tests share, a browser, and one job of project alpha that has trained to its end.</summary>
public sealed class SiteFixture : IAsyncLifetime
{
    private Site? _site;
    private Browser? _browser;

    internal Site Site => _site!;

    internal Browser Browser => _browser!;

    /// <summary>With checkpoints, samples and two evaluations.</summary>
    public JobId Done { get; private set; }

    public async Task InitializeAsync()
    {
        _site = await Site.StartAsync();
        _browser = await Browser.StartAsync();
        Done = (await _site.SubmitAsync("done")).Id;
        await _site.UntilAsync(Done, JobStatus.Succeeded);
    }

    public async Task DisposeAsync()
    {
        if (_browser is not null)
        {
            await _browser.DisposeAsync();
        }
        if (_site is not null)
        {
            await _site.DisposeAsync();
        }
    }
}

/// <summary>Tests at the shared site. What a test leaves at work, as a failed one does, is ended after it: the site has one slot.</summary>
public abstract class SharedSiteTests(SiteFixture fixture) : IAsyncLifetime
{
    internal Site Site => fixture.Site;

    internal Browser Browser => fixture.Browser;

    internal JobId Done => fixture.Done;

    public Task InitializeAsync() => Task.CompletedTask;

    public Task DisposeAsync() => Site.EndJobsAsync();
}

[CollectionDefinition(Name)]
public sealed class SharedSite : ICollectionFixture<SiteFixture>
{
    public const string Name = "shared site";
}
