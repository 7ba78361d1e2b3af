using System.CommandLine;
using System.Globalization;
using System.Text;
using System.Text.Json;
using Spectre.Console;
using Trainer.Contracts;

namespace Trainer.Cli.Commands;

/// <summary><c>trainer metrics JOB</c>: the curves of a job in the terminal, or its figures for programs.</summary>
internal static class Metrics
{
    private const int PipedWidth = 100;
    private const int PipedHeight = 10;

    private static readonly TimeSpan s_often = TimeSpan.FromMilliseconds(300);
    private static readonly string[] s_usual = ["loss", "eval_loss"];

    public static Command Create()
    {
        Argument<string> id = Shared.Job();
        var format = new Option<string>("-o", "--output") { Description = "text (curves), table, csv, or json (a line a step).", DefaultValueFactory = _ => "text" };
        format.AcceptOnlyFromAmong("text", "table", "csv", "json");
        var keys = new Option<string?>("--key") { Description = "Which figures, such as loss,grad_norm. Default: loss and eval_loss as curves, else all.", HelpName = "KEY,..." };
        keys.CompletionSources.Add("loss", "eval_loss", "learning_rate", "grad_norm", "tokens", "tokens_per_second", "mfu", "seconds");
        var follow = new Option<bool>("--follow", "-f") { Description = "Goes on until the job ends; exits with its outcome." };
        var tail = new Option<int?>("--tail") { Description = "The newest N steps only; 0: all. Default: 20 of tables and JSON, else all.", HelpName = "N" };
        tail.Validators.Add(result =>
        {
            if (result.GetValueOrDefault<int?>() < 0)
            {
                result.AddError("--tail: give 0 or more steps");
            }
        });
        var command = new Command("metrics", "Draws the metrics of a job as curves, or prints them.") { id, keys, follow, tail, format };
        command.SetAction(async (options, cancellationToken) =>
        {
            CoordinatorLocator locator = CoordinatorLocator.FromEnvironment();
            string shape = options.GetValue(format)!;
            JobView job;
            Steps steps;
            using (CoordinatorClient client = await locator.ConnectAsync(cancellationToken))
            {
                job = await client.GetAsync(options.GetRequiredValue(id), cancellationToken);
                var written = new LogTail(new RankName(job.Id, job.Attempt, 0), LogStream.Metrics, locator.FilesOf(job), job.Status.IsTerminal());
                steps = new Steps(await written.NewLinesAsync(client, atEnd: false, cancellationToken),
                    options.GetValue(tail) ?? (shape is "table" or "json" ? 20 : 0), options.GetValue(keys)?.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries));
            }
            int outcome = ExitCode.Succeeded;
            if (options.GetValue(follow))
            {
                outcome = await FollowAsync(locator, job.Id, steps, shape, cancellationToken);
            }
            else if (steps.Rows.Count == 0 && shape is "text" or "table")
            {
                Console.WriteLine($"{job.Id} has no metrics yet");
            }
            else
            {
                Print(steps, shape);
            }
            if (steps.Malformed > 0)
            {
                await Console.Error.WriteLineAsync($"{steps.Malformed} {(steps.Malformed == 1 ? "line" : "lines")} of metrics.jsonl left out: no JSON of a step");
            }
            return outcome;
        });
        return command;
    }

    /// <summary>Curves of a terminal are drawn again and again; what goes elsewhere is written as it comes, curves once at the end.</summary>
    private static async Task<int> FollowAsync(CoordinatorLocator locator, JobId id, Steps steps, string shape, CancellationToken cancellationToken)
    {
        bool draws = shape is "text" or "table";
        if (draws && !Console.IsOutputRedirected)
        {
            await AnsiConsole.Live(new Text("")).StartAsync(live => ReadAsync(() =>
            {
                live.UpdateTarget(shape == "text" ? new Markup(Curves(steps)) : Table(steps));
                live.Refresh();
            }));
        }
        else
        {
            if (!draws)
            {
                Print(steps, shape);
            }
            await ReadAsync(draws ? null : () => PrintRow(steps, steps.Rows[^1], shape));
            if (draws)
            {
                Print(steps, shape);
            }
        }
        using CoordinatorClient client = await locator.ConnectAsync(cancellationToken);
        return ExitCode.Of((await client.GetAsync(id.Value, cancellationToken)).Status);

        async Task ReadAsync(Action? changed)
        {
            if (draws && steps.Rows.Count > 0)
            {
                changed?.Invoke();
            }
            while (true)
            {
                try
                {
                    using CoordinatorClient client = await locator.ConnectAsync(cancellationToken);
                    await foreach (string line in client.MetricsAsync(id.Value, steps.Last, cancellationToken))
                    {
                        if (steps.Add(line))
                        {
                            changed?.Invoke();
                        }
                    }
                    if ((await client.GetAsync(id.Value, cancellationToken)).Status.IsTerminal())
                    {
                        return;
                    }
                }
                catch (CoordinatorException error) when (error.Status is null)
                {
                    // Another one may come in its place; the job has not ended.
                }
                await Task.Delay(s_often, cancellationToken);
            }
        }
    }

    private static void Print(Steps steps, string shape)
    {
        switch (shape)
        {
            case "text":
                AnsiConsole.MarkupLine(Curves(steps));
                break;
            case "table":
                AnsiConsole.Profile.Width = Console.IsOutputRedirected ? 1000 : AnsiConsole.Profile.Width;
                AnsiConsole.Write(Table(steps));
                break;
            default:
                if (shape == "csv")
                {
                    Console.WriteLine(PlainText.OneLine(string.Join(',', steps.Columns)));
                }
                foreach (JsonElement row in steps.Rows)
                {
                    PrintRow(steps, row, shape);
                }
                break;
        }
    }

    private static void PrintRow(Steps steps, JsonElement row, string shape) => Console.WriteLine(shape == "csv"
        ? string.Join(',', steps.Columns.Select(column => Steps.Cell(row, column)))
        : PlainText.OneLine(steps.Json(row)));

    /// <summary>As markup, as wide as the terminal is now.</summary>
    private static string Curves(Steps steps)
    {
        bool piped = Console.IsOutputRedirected;
        string[] keys = steps.Keys ?? [.. s_usual.Where(key => steps.Rows.Any(row => row.TryGetProperty(key, out _)))];
        int width = piped ? PipedWidth : AnsiConsole.Profile.Width - 1;
        int height = piped ? PipedHeight : Math.Clamp((AnsiConsole.Profile.Height - 2) / Math.Max(1, keys.Length) - 3, 3, 16);
        long[] restarts = steps.Restarts();
        var text = new StringBuilder();
        foreach (string key in keys)
        {
            foreach (string line in new Curve(Markup.Escape(PlainText.OneLine(key)), steps.Values(key), restarts).Lines(width, height, Paint))
            {
                text.Append(line).Append('\n');
            }
        }
        if (restarts.Length > 0)
        {
            text.Append(CultureInfo.InvariantCulture, $"┊ another attempt goes on: step {string.Join(", ", restarts)}\n");
        }
        return text.ToString().TrimEnd('\n');

        static string Paint(string what, string letters) => $"[{(what == "mark" ? "yellow" : "aqua")}]{letters}[/]";
    }

    private static Table Table(Steps steps)
    {
        var table = new Table { Border = TableBorder.None };
        table.AddColumns(steps.Columns.Select(column => Markup.Escape(PlainText.OneLine(column))).ToArray());
        foreach (JsonElement row in steps.Rows)
        {
            table.AddRow(steps.Columns.Select(column => new Text(Steps.Cell(row, column))));
        }
        return table;
    }

    /// <summary>Lines of metrics.jsonl.</summary>
    private sealed class Steps
    {
        private readonly int _most;

        /// <exception cref="ConfigException">A key is no figure of the job.</exception>
        public Steps(IEnumerable<string> lines, int most, string[]? keys)
        {
            Keys = keys is { Length: > 0 } ? keys : null;
            _most = most;
            foreach (string line in lines)
            {
                Add(line);
            }
            string[] known = [.. Rows.SelectMany(row => row.EnumerateObject().Select(cell => cell.Name)).Distinct()];
            if (known.Length > 0 && Keys?.FirstOrDefault(key => !known.Contains(key) && !s_usual.Contains(key)) is { } wrong)
            {
                throw new ConfigException($"--key {wrong}: the job reports {string.Join(", ", known)}");
            }
        }

        /// <summary>Null: whatever there is.</summary>
        public string[]? Keys { get; }

        public List<JsonElement> Rows { get; } = [];

        public long Last { get; private set; }

        public string[] Columns => Keys is null
            ? [.. Rows.SelectMany(row => row.EnumerateObject().Select(cell => cell.Name)).Distinct()]
            : [.. Keys.Prepend("step").Distinct()];

        /// <summary>Lines that are no steps, such as one that a full disk cut off.</summary>
        public int Malformed { get; private set; }

        /// <returns>Whether the line is a step.</returns>
        public bool Add(string line)
        {
            if (Parse(line) is not { } row)
            {
                Malformed++;
                return false;
            }
            Rows.Add(row);
            Last = Step(row);
            if (_most > 0 && Rows.Count > _most)
            {
                Rows.RemoveAt(0);
            }
            return true;
        }

        public IReadOnlyList<(long Step, double Value)> Values(string key) => [.. Rows.Where(row => row.TryGetProperty(key, out _)).Select(row => (Step(row), Number(row, key)))];

        /// <summary>Steps at which the clock of an attempt began anew.</summary>
        public long[] Restarts() => [.. Rows.Zip(Rows.Skip(1)).Where(pair => Number(pair.Second, "seconds") < Number(pair.First, "seconds")).Select(pair => Step(pair.Second))];

        public string Json(JsonElement row) => Keys is null ? row.GetRawText()
            : $"{{{string.Join(',', Columns.Where(column => row.TryGetProperty(column, out _)).Select(column => $"\"{column}\":{row.GetProperty(column).GetRawText()}"))}}}";

        /// <summary>As CSV; numbers as they are written.</summary>
        public static string Cell(JsonElement row, string column)
        {
            string text = row.TryGetProperty(column, out JsonElement cell) ? PlainText.OneLine(cell.ToString()) : "";
            return text.AsSpan().IndexOfAny(",\"\r\n") < 0 ? text : $"\"{text.Replace("\"", "\"\"", StringComparison.Ordinal)}\"";
        }

        private static JsonElement? Parse(string line)
        {
            try
            {
                JsonElement row = JsonElement.Parse(line);
                return row.ValueKind is JsonValueKind.Object && row.TryGetProperty("step", out JsonElement step)
                    && step.ValueKind is JsonValueKind.Number && step.TryGetInt64(out _) ? row : null;
            }
            catch (JsonException)
            {
                return null;
            }
        }

        private static long Step(JsonElement row) => row.GetProperty("step").GetInt64();

        private static double Number(JsonElement row, string key) =>
            row.TryGetProperty(key, out JsonElement cell) && cell.ValueKind is JsonValueKind.Number ? cell.GetDouble() : double.NaN;
    }
}
