using Microsoft.Playwright;

namespace Dashboard.Tests;

/// <summary>Debian's Chromium without a window, as a person's browser is otherwise.</summary>
internal sealed class Browser : IAsyncDisposable
{
    private static readonly string[] s_arguments =
    [
        // As root, on a machine that reaches no other.
        "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    ];

    private readonly IPlaywright _playwright;
    private readonly IBrowser _browser;

    private Browser(IPlaywright playwright, IBrowser browser) => (_playwright, _browser) = (playwright, browser);

    public static async Task<Browser> StartAsync()
    {
        IPlaywright playwright = await Playwright.CreateAsync();
        Assertions.SetDefaultExpectTimeout(20_000);
        return new Browser(playwright, await playwright.Chromium.LaunchAsync(new BrowserTypeLaunchOptions
        {
            ExecutablePath = Environment.GetEnvironmentVariable("CHROMIUM") ?? "/usr/bin/chromium",
            Args = s_arguments,
        }));
    }

    /// <summary>A new person's page, signed in with the token, if any.</summary>
    public async Task<Visit> VisitAsync(Site site, string? token = "alpha", ColorScheme theme = ColorScheme.Light, int width = 1360, int height = 860)
    {
        IBrowserContext context = await _browser.NewContextAsync(new BrowserNewContextOptions
        {
            BaseURL = site.Address.ToString(), ColorScheme = theme, ViewportSize = new ViewportSize { Width = width, Height = height }, AcceptDownloads = true,
        });
        IPage page = await context.NewPageAsync();
        page.SetDefaultTimeout(20_000);
        var visit = new Visit(context, page, site);
        if (token is not null)
        {
            await visit.SignInAsync(token);
        }
        return visit;
    }

    public async ValueTask DisposeAsync()
    {
        await _browser.DisposeAsync();
        _playwright.Dispose();
    }
}

/// <summary>One person's page. Every problem that the browser tells of, and every request to elsewhere, is kept.</summary>
internal sealed class Visit : IAsyncDisposable
{
    private readonly IBrowserContext _context;

    public Visit(IBrowserContext context, IPage page, Site site)
    {
        _context = context;
        Page = page;
        page.Console += (_, message) =>
        {
            if (message.Type is "error" && !message.Text.StartsWith("Failed to load resource", StringComparison.Ordinal))
            {
                Problems.Add(message.Text);
            }
        };
        page.PageError += (_, error) => Problems.Add(error);
        page.Request += (_, request) =>
        {
            if (new Uri(request.Url).Authority != site.Address.Authority && !request.Url.StartsWith("data:", StringComparison.Ordinal))
            {
                Problems.Add($"asked {request.Url}");
            }
        };
        page.Dialog += async (_, dialog) =>
        {
            Problems.Add($"a dialog: {dialog.Message}");
            await dialog.DismissAsync();
        };
    }

    public IPage Page { get; }

    public IBrowserContext Context => _context;

    public List<string> Problems { get; } = [];

    public async Task SignInAsync(string token)
    {
        await Page.GotoAsync("/");
        await Page.GetByLabel("Access token").FillAsync(token);
        await Page.GetByRole(AriaRole.Button, new() { Name = "Sign in" }).ClickAsync();
        await Assertions.Expect(Page.GetByRole(AriaRole.Heading, new() { Name = "Jobs", Exact = true })).ToBeVisibleAsync();
    }

    /// <summary>Opens a page of the dashboard and waits until it has something to show.</summary>
    public async Task GoAsync(string path)
    {
        await Page.GotoAsync(path);
        await Page.Locator(".page h1").First.WaitForAsync();
    }

    /// <summary>Chooses in a job's menu, and says yes.</summary>
    public async Task DoAsync(string job, string action, string yes)
    {
        await Page.GetByRole(AriaRole.Button, new() { Name = $"Actions for {job}" }).ClickAsync();
        await Page.GetByRole(AriaRole.Menuitem, new() { Name = action }).ClickAsync();
        await Page.GetByRole(AriaRole.Dialog).GetByRole(AriaRole.Button, new() { Name = yes }).ClickAsync();
    }

    public async ValueTask DisposeAsync() => await _context.DisposeAsync();
}
