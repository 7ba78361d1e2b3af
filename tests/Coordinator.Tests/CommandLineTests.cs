using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using Trainer.Contracts;

namespace Coordinator.Tests;

/// <summary>The real executable with a real coordinator in the background.</summary>
public sealed class CommandLineTests : IAsyncLifetime
{
    private readonly TestHome _home = new();

    public Task InitializeAsync() => Task.CompletedTask;

    public async Task DisposeAsync()
    {
        await RunAsync("stop");
        _home.Dispose();
    }

    [Fact]
    public async Task Wrong_jobs_are_told_completely_and_leave_no_trace()
    {
        string bad = Path.Combine(_home.Root, "bad.yaml");
        await File.WriteAllTextAsync(bad, "name: demo\nmodel: {pth: x}\ndata: {train: [{path: train.jsonl}]}\nseed: x\n");
        string missing = Path.Combine(_home.Root, "missing.yaml");
        await File.WriteAllTextAsync(missing, "name: demo\nmodel: {path: nowhere}\ndata: {train: [{path: nothing.jsonl}]}\n");

        foreach (string[] verb in new string[][] { ["submit", "--follow"], ["submit"], ["submit", "--dry-run"], ["validate"] })
        {
            (int code, string output, string error) = await RunAsync([.. verb, bad]);
            Assert.Equal(2, code);
            Assert.Empty(output);
            Assert.Equal($"{bad}:2:9 model.pth: unknown key; did you mean path?\n{bad}:4:7 seed: \"x\" was given; expected an integer such as 42\n"
                + $"{bad}:2:8 model: neither path nor config is given; give path (a Hugging Face snapshot), or config (a config.json, weights at random)\n", error);
        }
        (int other, _, string problems) = await RunAsync("submit", missing);
        Assert.Equal(2, other);
        Assert.Equal(2, problems.Split('\n', StringSplitOptions.RemoveEmptyEntries).Count(line => line.Contains("does not exist", StringComparison.Ordinal)));
        Assert.Equal(2, (await RunAsync("submit", "no.yaml")).Code);
        Assert.Equal(2, (await RunAsync("submit", _home.JobFile, "--set", "sead=1")).Code);
        Assert.Equal(2, (await RunAsync("frobnicate")).Code);
        Assert.Equal(2, (await RunAsync("submit")).Code);
        Assert.Equal(0, (await RunAsync("submit", "--dry-run", _home.JobFile)).Code);
        Assert.Equal(0, (await RunAsync("list")).Code);
        Assert.Equal(0, (await RunAsync("stop")).Code);
        Assert.False(Directory.Exists(_home.Home.Directory));
    }

    [Fact]
    public async Task Following_survives_a_killed_coordinator_and_ends_with_the_job()
    {
        using Process follow = Start("submit", _home.JobFile, "--follow");
        Task<string> output = follow.StandardOutput.ReadToEndAsync();
        Task<string> error = follow.StandardError.ReadToEndAsync();
        JobId id = await FirstJobAsync();
        int pid = int.Parse(await File.ReadAllTextAsync(_home.Home.Pid), CultureInfo.InvariantCulture);
        Process.GetProcessById(pid).Kill();
        await UntilAsync(() => File.Exists(_home.Home.Pid) && int.TryParse(File.ReadAllText(_home.Home.Pid), CultureInfo.InvariantCulture, out int next) && next != pid);
        Assert.Single(_home.Pids(id, 1));

        _home.Do(id, 1, RankOutcome.Succeeded);
        await follow.WaitForExitAsync().WaitAsync(TimeSpan.FromSeconds(30));

        Assert.Equal(0, follow.ExitCode);
        Assert.Equal(2, (await error).Split("starting a coordinator").Length - 1);
        string[] lines = (await output).Split('\n');
        Assert.Single(lines, "rank of attempt 1");
        Assert.Single(lines, $"{id}: attempt 1 starts on local");
        Assert.Single(lines, $"{id}: succeeded: at step 3");
    }

    [Fact]
    public async Task A_failed_job_is_an_exit_code_and_can_be_resumed()
    {
        (int code, string output, _) = await RunAsync("submit", _home.JobFile, "-o", "json", "--name", "other", "--set", "seed=7");
        Assert.Equal(0, code);
        JobView job = JsonSerializer.Deserialize(output, ContractsJson.Default.JobView)!;
        Assert.Equal((1, "other"), (job.SchemaVersion, job.Name));
        await _home.PidAsync(job.Id, 1);
        _home.Do(job.Id, 1, RankOutcome.Failed, FailureClass.User, "the loss is not finite");

        Assert.Equal(1, (await RunAsync("logs", "other", "-f")).Code);
        Assert.Contains("the loss is not finite", (await RunAsync("status", "oth")).Output, StringComparison.Ordinal);
        Assert.Equal("rank of attempt 1\n", (await RunAsync("logs", "other", "--attempt", "1")).Output);
        Assert.Equal(0, (await RunAsync("resume", "other")).Code);
        await _home.PidAsync(job.Id, 2);
        Assert.Contains("1 running job goes on", (await RunAsync("stop")).Output, StringComparison.Ordinal);
        Assert.Single(_home.Pids(job.Id, 2));

        JobList jobs = JsonSerializer.Deserialize((await RunAsync("list", "-o", "json")).Output, ContractsJson.Default.JobList)!;
        Assert.Equal((job.Id, JobStatus.Running, 2), (jobs.Jobs[0].Id, jobs.Jobs[0].Status, jobs.Jobs[0].Attempt));
        Assert.Equal(3, (await RunAsync("status", "nope")).Code);
    }

    [Fact]
    public async Task Logs_of_a_job_that_has_not_started_say_so()
    {
        JobView job = JsonSerializer.Deserialize((await RunAsync("submit", _home.JobFile, "--paused", "-o", "json")).Output, ContractsJson.Default.JobView)!;
        (int code, string output, string error) = await RunAsync("logs", "demo");
        Assert.Equal((0, ""), (code, output));
        Assert.StartsWith($"{job.Id} has not started: paused", error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Ctrl_C_detaches_and_the_job_goes_on()
    {
        using Process follow = Start("submit", _home.JobFile, "--follow");
        Task<string> error = follow.StandardError.ReadToEndAsync();
        JobId id = await FirstJobAsync();

        using (Process kill = Process.Start("kill", ["-INT", follow.Id.ToString(CultureInfo.InvariantCulture)]))
        {
            await kill.WaitForExitAsync();
        }
        await follow.WaitForExitAsync().WaitAsync(TimeSpan.FromSeconds(10));

        Assert.Equal(130, follow.ExitCode);
        Assert.Contains($"detached; {id} goes on", await error, StringComparison.Ordinal);
        Assert.Single(_home.Pids(id, 1));
    }

    [Fact]
    public async Task A_job_elsewhere_is_followed_to_its_last_line()
    {
        Assert.Equal(0, (await RunAsync("submit", _home.JobFile)).Code);
        JobId id = await FirstJobAsync();
        JobFiles files = _home.Home.Job(id);
        await File.WriteAllTextAsync(files.Metrics, "{\"step\":1,\"loss\":2.5}\n");
        string elsewhere = Path.Combine(_home.Root, "elsewhere");
        using Process logs = StartIn(elsewhere, ["logs", "demo", "--follow"], _home.Home.Socket);
        using Process events = StartIn(elsewhere, ["events", "demo", "--follow", "-o", "json"], _home.Home.Socket);
        Task<string> lines = logs.StandardOutput.ReadToEndAsync(), records = events.StandardOutput.ReadToEndAsync();
        await Task.Delay(1000);

        await File.AppendAllTextAsync(files.Attempt(1).Stdout, "one more\nand the last");
        _home.Do(id, 1, RankOutcome.Succeeded);
        await logs.WaitForExitAsync().WaitAsync(TimeSpan.FromSeconds(30));
        await events.WaitForExitAsync().WaitAsync(TimeSpan.FromSeconds(30));

        Assert.Equal((0, "rank of attempt 1\none more\nand the last\n"), (logs.ExitCode, await lines));
        Assert.Equal(0, events.ExitCode);
        Assert.Equal(["submitted", "attempt 1 starts on local", "succeeded: at step 3"], (await records).Split('\n', StringSplitOptions.RemoveEmptyEntries)
            .Select(line => JsonSerializer.Deserialize(line, ContractsJson.Default.HistoryEntry)!.Text));
        using Process metrics = StartIn(elsewhere, ["metrics", "demo", "-o", "json"], _home.Home.Socket);
        Assert.Equal("{\"step\":1,\"loss\":2.5}\n", await metrics.StandardOutput.ReadToEndAsync());
    }

    /// <summary>Two attempts, of which the second began at step 30, and a step without a finite norm.</summary>
    [Fact]
    public async Task Metrics_are_curves_tables_and_lines_for_programs()
    {
        await RunAsync("submit", _home.JobFile);
        JobId id = await FirstJobAsync();
        string[] lines = [.. Enumerable.Range(1, 60).Select(step => string.Create(CultureInfo.InvariantCulture,
            $"{{\"step\":{step},\"loss\":{12.0 / step:0.####},\"grad_norm\":{(step == 7 ? "\"NaN\"" : "1.5")},\"seconds\":{(step < 30 ? step : step - 29)}{(step % 20 == 0 ? ",\"eval_loss\":2.5" : "")}}}"))];
        string path = _home.Home.Job(id).Metrics;
        await File.WriteAllLinesAsync(path, lines[..40]);

        using Process follow = Start("metrics", "demo", "--follow", "-o", "csv", "--key", "loss,eval_loss");
        Task<string> followed = follow.StandardOutput.ReadToEndAsync();
        await Task.Delay(1500);
        await File.AppendAllLinesAsync(path, lines[40..]);
        await Task.Delay(1500);
        _home.Do(id, 1, RankOutcome.Succeeded);
        await follow.WaitForExitAsync().WaitAsync(TimeSpan.FromSeconds(30));
        Assert.Equal(0, follow.ExitCode);
        string[] csv = (await followed).Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal(["step,loss,eval_loss", "1,12,", "2,6,"], csv[..3]);
        Assert.Equal("20,0.6,2.5", csv[20]);
        Assert.Equal(Enumerable.Range(1, 60).Select(step => $"{step}"), csv[1..].Select(line => line.Split(',')[0]));

        string curves = (await RunAsync("metrics", "demo")).Output;
        Assert.DoesNotContain('\u001b', curves);
        string[] drawn = curves.Split('\n');
        Assert.Equal("loss  12 -> 0.2  (least 0.2 at step 60, greatest 12)", drawn[0]);
        Assert.Equal("eval_loss  2.5 -> 2.5  (least 2.5 at step 20, greatest 2.5)", drawn[12]);
        Assert.All(drawn[1..11], line => Assert.Equal(100, line.Length));
        // The curve falls from the first dot of the first row to the last of the last, and a mark stands half way where it leaves room.
        Assert.Equal(('⡇', '⣀'), (drawn[1][11], drawn[10][^1]));
        Assert.Equal(11 + 43, drawn[1].IndexOf('┊', StringComparison.Ordinal));
        Assert.EndsWith("step 60", drawn[11], StringComparison.Ordinal);
        Assert.Contains("┊ another attempt goes on: step 30\n", curves, StringComparison.Ordinal);
        Assert.Equal("grad_norm  1.5 -> 1.5  (least 1.5 at step 1, greatest 1.5)", (await RunAsync("metrics", "demo", "--key", "grad_norm")).Output.Split('\n')[0]);

        string[] json = (await RunAsync("metrics", "demo", "-o", "json", "--tail", "2", "--key", "loss")).Output.Split('\n');
        Assert.Equal(["{\"step\":59,\"loss\":0.2034}", "{\"step\":60,\"loss\":0.2}", ""], json);
        Assert.Equal(lines[40..], (await RunAsync("metrics", "demo", "-o", "json")).Output.Split('\n')[..^1]);
        Assert.Equal(61, (await RunAsync("metrics", "demo", "-o", "csv")).Output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length);
        Assert.Equal(21, (await RunAsync("metrics", "demo", "-o", "table")).Output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length);
        Assert.Equal(2, (await RunAsync("metrics", "demo", "--tail", "-1")).Code);
        (int code, _, string error) = await RunAsync("metrics", "demo", "--key", "los");
        Assert.Equal((2, "--key los: the job reports step, loss, grad_norm, seconds, eval_loss\n"), (code, error));
    }

    [Fact]
    public async Task A_home_that_is_too_long_for_a_socket_is_told()
    {
        (int code, _, string error) = await RunInAsync(Path.Combine(_home.Root, new string('x', 120)), "submit", _home.JobFile);

        Assert.Equal(2, code);
        Assert.Contains("too long for a Unix socket", error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_damaged_database_is_told_with_its_cure()
    {
        Directory.CreateDirectory(_home.Home.Directory);
        byte[] noise = new byte[20_000];
        new Random(1).NextBytes(noise);
        await File.WriteAllBytesAsync(_home.Home.Database, noise);
        (int code, _, string error) = await RunAsync("serve", "--no-worker");
        Assert.Equal(2, code);
        string said = error.Split('\n', StringSplitOptions.RemoveEmptyEntries)[^1];
        Assert.StartsWith($"{_home.Home.Database}: the coordinator's database is damaged (SQLite Error 26", said, StringComparison.Ordinal);
        Assert.Contains("move it away", said, StringComparison.Ordinal);
        Assert.False(File.Exists(_home.Home.Pid));

        (code, _, error) = await RunAsync("list");
        Assert.Equal(4, code);
        Assert.EndsWith($"its last words in {_home.Home.Log}:\n{said}\n", error, StringComparison.Ordinal);

        File.Delete(_home.Home.Database);
        Assert.Equal(0, (await RunAsync("list")).Code);
    }

    [Fact]
    public async Task A_home_that_cannot_be_written_is_told()
    {
        string file = Path.Combine(_home.Root, "file");
        await File.WriteAllTextAsync(file, "");
        foreach (string home in (string[])["/proc/home", file])
        {
            foreach (string[] verb in (string[][])[["submit", _home.JobFile], ["serve"]])
            {
                (int code, _, string error) = await RunInAsync(home, verb);
                Assert.Equal(2, code);
                Assert.StartsWith($"TRAINER_HOME {home}: nothing can be written there (", error, StringComparison.Ordinal);
                Assert.EndsWith("set TRAINER_HOME to a folder of yours\n", error, StringComparison.Ordinal);
            }
        }
    }

    [Theory]
    [InlineData("--coordinator is empty", "worker", "--coordinator", "")]
    [InlineData("--tokens is empty", "serve", "--tokens", "")]
    [InlineData("--file is empty", "token", "--role", "worker", "--file", "")]
    [InlineData("JOB|DIR is empty", "generate", "", "hi")]
    [InlineData("FILE is empty", "validate", "")]
    [InlineData("PROJECT is empty", "pools", "quota", "", "3")]
    public async Task What_is_given_without_a_character_is_a_wrong_command_line(string complaint, params string[] arguments)
    {
        (int code, _, string error) = await RunAsync(arguments);
        Assert.Equal(2, code);
        Assert.StartsWith($"{complaint}; is a variable not set?\nSee \"trainer ", error, StringComparison.Ordinal);
        Assert.False(Directory.Exists(_home.Home.Directory));
    }

    [Theory]
    [InlineData("status", "")]
    [InlineData("cancel", " ")]
    [InlineData("logs", "..")]
    public async Task A_name_that_is_none_is_a_wrong_command_line(string verb, string job)
    {
        (int code, _, string error) = await RunAsync(verb, job);
        Assert.Equal(2, code);
        Assert.Contains("names no job", error, StringComparison.Ordinal);
        Assert.False(Directory.Exists(_home.Home.Directory));
    }

    [Fact]
    public async Task Tokens_made_at_once_are_all_kept()
    {
        string list = Path.Combine(_home.Root, "tokens.json");
        await Task.WhenAll(Enumerable.Range(0, 8).Select(async i =>
        {
            (int code, _, string error) = await RunAsync("token", "--role", "user", "--project", $"p{i}", "--file", list);
            Assert.True(code == 0, error);
        }));
        Assert.Equal(8, AccessEntry.ReadList(list).Select(entry => entry.Project).Distinct().Count());
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(list));
    }

    /// <summary>The text of a reason is another person's; a terminal must not obey it.</summary>
    [Fact]
    public async Task A_job_that_has_ended_is_told_plainly_and_nothing_is_asked_of_it()
    {
        Assert.Equal(0, (await RunAsync("submit", _home.JobFile)).Code);
        JobId id = await FirstJobAsync();
        await File.WriteAllTextAsync(_home.Home.Job(id).Metrics, "{\"step\":1,\"loss\":2}\n{\"step\":2,\"lo\n7\n{\"loss\":1}\n{\"step\":3,\"loss\":1,\"note\":\"\\u001b[2J\"}\n");
        _home.Do(id, 1, RankOutcome.Failed, FailureClass.User, "\u001b]0;x\u0007 \u202Egone");
        Assert.Equal(1, (await RunAsync("logs", "demo", "-f")).Code);

        foreach (string[] verb in (string[][])[["status", "demo"], ["list"], ["events", "demo"], ["list", "-o", "json"], ["events", "demo", "-o", "json"], ["metrics", "demo", "-o", "csv"]])
        {
            (int code, string output, _) = await RunAsync(verb);
            Assert.Equal(0, code);
            Assert.DoesNotContain(output, letter => letter is '\u001b' or '\u0007' or '\u202E');
        }
        Assert.Contains("\uFFFD]0;x\uFFFD \uFFFDgone", (await RunAsync("status", "demo")).Output, StringComparison.Ordinal);

        (int drawn, string curves, string skipped) = await RunAsync("metrics", "demo");
        Assert.Equal((0, "3 lines of metrics.jsonl left out: no JSON of a step\n"), (drawn, skipped));
        Assert.StartsWith("loss  2 -> 1", curves, StringComparison.Ordinal);

        (int paused, _, string refusal) = await RunAsync("pause", "demo");
        Assert.Equal((2, $"{id} has already ended (failed); nothing to pause\n"), (paused, refusal));
        (int cancelled, string state, string remark) = await RunAsync("cancel", "demo");
        Assert.Equal((0, $"{id} has already ended; nothing to cancel\n"), (cancelled, remark));
        Assert.StartsWith($"{id}: failed", state, StringComparison.Ordinal);
        foreach (string rank in (string[])["99", "-1"])
        {
            (int code, _, string error) = await RunAsync("logs", "demo", "--rank", rank);
            Assert.Equal((2, $"--rank {rank}: {id} has rank 0 only\n"), (code, error));
        }
    }

    [Fact]
    public async Task Retry_says_what_to_do_with_a_job_that_has_not_failed()
    {
        Assert.Equal(0, (await RunAsync("submit", _home.JobFile)).Code);
        JobId id = await FirstJobAsync();
        await AssertRetryAsync($"{id} is running and has not failed, so there is nothing to retry; \"trainer cancel {id}\" ends it\n");
        Assert.Equal(0, (await RunAsync("pause", "demo")).Code);
        await AssertRetryAsync($"{id} is stopping and has not failed; \"trainer resume {id}\" goes on with it\n");
        _home.Do(id, 1, RankOutcome.Succeeded);
        Assert.Equal(0, (await RunAsync("logs", "demo", "-f")).Code);
        await AssertRetryAsync($"{id} has succeeded, so there is nothing to retry; submit its file again to repeat the training, or one whose model.path is the folder of \"trainer export {id} --out FOLDER\" to train on\n");

        async Task AssertRetryAsync(string refusal)
        {
            (int code, _, string error) = await RunAsync("retry", "demo");
            Assert.Equal((2, refusal), (code, error));
        }
    }

    [Theory]
    [InlineData("checkpoints list", "checkpoints list")]
    [InlineData("checkpoints", "checkpoints")]
    [InlineData("pools quota --flavour", "pools quota")]
    [InlineData("status", "status")]
    public async Task A_wrong_command_line_points_to_the_help_of_its_command(string arguments, string verbs)
    {
        (int code, _, string error) = await RunAsync(arguments.Split(' '));
        Assert.Equal(2, code);
        Assert.EndsWith($"See \"trainer {verbs} --help\".\n", error, StringComparison.Ordinal);
        Assert.Equal(0, (await RunAsync([.. verbs.Split(' '), "--help"])).Code);
    }

    private async Task<JobId> FirstJobAsync()
    {
        JobId id = default;
        await UntilAsync(() => Directory.Exists(_home.Home.Jobs) && Directory.GetDirectories(_home.Home.Jobs) is [var folder]
            && _home.Pids(id = new JobId(Path.GetFileName(folder)), 1).Length == 1);
        return id;
    }

    private Task<(int Code, string Output, string Error)> RunAsync(params string[] arguments) => RunInAsync(_home.Home.Directory, arguments);

    private async Task<(int Code, string Output, string Error)> RunInAsync(string home, params string[] arguments)
    {
        using Process process = StartIn(home, arguments);
        Task<string> output = process.StandardOutput.ReadToEndAsync();
        Task<string> error = process.StandardError.ReadToEndAsync();
        await process.WaitForExitAsync().WaitAsync(TimeSpan.FromSeconds(40));
        return (process.ExitCode, await output, await error);
    }

    private Process Start(params string[] arguments) => StartIn(_home.Home.Directory, arguments);

    private Process StartIn(string home, string[] arguments, string? coordinator = null)
    {
        // A shell in the background ignores SIGINT and bequeaths that; a person's terminal does not.
        var start = new ProcessStartInfo("env", ["--default-signal=INT", Path.Combine(AppContext.BaseDirectory, "trainer"), .. arguments])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        start.Environment["TRAINER_HOME"] = home;
        start.Environment["TRAINER_COORDINATOR"] = coordinator;
        start.Environment["TRAINER_RANK_COMMAND"] = _home.Rank;
        return Process.Start(start)!;
    }

    private static async Task UntilAsync(Func<bool> holds)
    {
        using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(20));
        while (!holds())
        {
            await Task.Delay(20, limit.Token);
        }
    }
}
