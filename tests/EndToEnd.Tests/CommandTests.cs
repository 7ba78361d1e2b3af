using System.Text.Json;
using Trainer.Contracts;

namespace Trainer.EndToEnd.Tests;

/// <summary>What the verbs do with jobs, as scripts and people see it.</summary>
public sealed class CommandTests
{
    [Fact]
    public async Task One_key_submitted_twenty_times_at_once_is_one_job_and_a_paused_one_runs_when_it_is_resumed()
    {
        using var place = new Workplace();
        JobView[] jobs = await Task.WhenAll(Enumerable.Range(0, 20).Select(_ => place.SubmitAsync("--paused", "--id", "night-17")));
        JobId id = Assert.Single(jobs.Select(job => job.Id).Distinct());
        JobView only = Assert.Single(JsonSerializer.Deserialize(await place.DoAsync("list", "-o", "json"), ContractsJson.Default.JobList)!.Jobs);
        Assert.Equal((id, JobStatus.Paused, 0), (only.Id, only.Status, only.Attempt));

        Outcome other = await place.RunAsync("submit", TinyJob.File, "--paused", "--id", "night-17", "--set", "seed=7");
        Assert.True(other.ExitCode == 2, other.Everything);
        Assert.Contains("another key", other.Error, StringComparison.Ordinal);

        await place.DoAsync("resume", "tiny");
        JobView done = await place.FinishAsync(id);
        Assert.Equal((JobStatus.Succeeded, 1), (done.Status, done.Attempt));
        (await TrainingTrace.ReadAsync(new JobFiles(done.Directory))).AssertEqual((await Undisturbed.OfAsync(Undisturbed.Full)).Trace);
    }

    [Fact]
    public async Task A_cancelled_job_saves_a_checkpoint_and_resumes_to_the_same_bits()
    {
        using var place = new Workplace();
        JobView job = await place.SubmitAsync(Undisturbed.Long);
        var files = new JobFiles(job.Directory);
        await Workplace.StepAsync(files, 3);
        await place.DoAsync("cancel", "tiny");
        job = await place.FinishAsync(job.Id);
        Assert.Equal(JobStatus.Cancelled, job.Status);
        Assert.InRange(job.Step, 3, Undisturbed.LongSteps - 1);
        Assert.True(File.Exists(Path.Combine(files.Checkpoints, $"step-{job.Step:D8}", "manifest.json")));
        Assert.Equal(1, (await place.RunAsync("logs", "tiny", "--follow")).ExitCode);

        await place.DoAsync("resume", "tiny");
        job = await place.FinishAsync(job.Id);
        Assert.Equal((JobStatus.Succeeded, 2, Undisturbed.LongSteps), (job.Status, job.Attempt, job.Step));
        (await TrainingTrace.ReadAsync(files)).AssertEqual((await Undisturbed.OfAsync(Undisturbed.Long)).Trace);

        Outcome again = await place.RunAsync("resume", "tiny");
        Assert.Equal(2, again.ExitCode);
        Assert.Contains("has succeeded", again.Error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Ctrl_C_detaches_and_the_job_goes_on_while_a_second_one_waits()
    {
        using var place = new Workplace();
        using TrainerProgram follower = place.Start(["submit", TinyJob.File, "--follow", .. Undisturbed.Long]);
        JobFiles files = await place.OnlyJobAsync();
        await Workplace.StepAsync(files, 1);
        LinuxProcesses.Signal(follower.Pid, LinuxProcesses.Interrupt);
        JobView second = await place.SubmitAsync("--name", "second", "--set", "training.steps=5");
        JobView waiting = await WaitingAsync(place, second.Id);
        Assert.StartsWith("waiting for 1 slot in pool default", waiting.Reason, StringComparison.Ordinal);

        // Only ranks load libtorch: a coordinator lives for weeks.
        int rank = Assert.Single(Workplace.Ranks(files));
        Assert.Contains("libtorch", LinuxProcesses.Maps(rank), StringComparison.Ordinal);
        string maps = LinuxProcesses.Maps(place.CoordinatorPid());
        Assert.Contains("libcoreclr", maps, StringComparison.Ordinal);
        Assert.DoesNotContain("libtorch", maps, StringComparison.Ordinal);

        Outcome detached = await follower.WaitAsync();
        Assert.True(detached.ExitCode == 130, detached.Everything);
        Assert.Contains("goes on", detached.Error, StringComparison.Ordinal);

        second = await place.FinishAsync(second.Id);
        Assert.Equal(JobStatus.Succeeded, second.Status);
        JobView first = await place.StatusAsync("tiny");
        Assert.Equal((JobStatus.Succeeded, 1), (first.Status, first.Attempt));
        Assert.True(second.StartedAt >= first.EndedAt);
        (await TrainingTrace.ReadAsync(files)).AssertEqual((await Undisturbed.OfAsync(Undisturbed.Long)).Trace);
    }

    [Fact]
    public async Task A_loss_that_is_not_finite_fails_the_job_with_a_cure_and_exit_code_1()
    {
        using var place = new Workplace();
        Outcome outcome = await place.RunAsync("submit", TinyJob.File, "--follow", "--set", "optimizer.learning_rate=100", "--set", "optimizer.weight_decay=100");
        Assert.True(outcome.ExitCode == 1, outcome.Everything);
        JobView job = await place.StatusAsync("tiny");
        Assert.Equal((JobStatus.Failed, 1), (job.Status, job.Attempt));
        Assert.Matches("step [0-9]+: the loss is .*lower optimizer.learning_rate", job.Reason);
        Assert.Contains(job.Reason!, outcome.Output, StringComparison.Ordinal);
        await place.DoAsync("stop");
        Assert.Empty(place.Processes());
    }

    [Fact]
    public async Task Json_outputs_have_a_schema_version()
    {
        using var place = new Workplace();
        string[][] commands = [
            ["validate", TinyJob.File, "-o", "json"],
            ["list", "-o", "json"],
            ["submit", TinyJob.File, "--paused", "-o", "json"],
            ["list", "-o", "json"],
            ["status", "tiny", "-o", "json"],
            ["cancel", "tiny", "-o", "json"],
        ];
        foreach (string[] command in commands)
        {
            using JsonDocument json = JsonDocument.Parse(await place.DoAsync(command));
            Assert.Equal(1, json.RootElement.GetProperty("schema_version").GetInt32());
        }

        File.WriteAllText(place.PathOf("tokenizer/chat_template.jinja"), "{% if x %}");
        using JsonDocument warned = JsonDocument.Parse(await place.DoAsync("validate", TinyJob.File, "-o", "json"));
        Assert.True(warned.RootElement.GetProperty("valid").GetBoolean());
        Assert.Contains("chat_template.jinja: line 1: {% if %} is never closed", warned.RootElement.GetProperty("warnings")[0].GetString(), StringComparison.Ordinal);
        foreach (string[] command in new string[][] { ["validate", TinyJob.File], ["submit", TinyJob.File, "--dry-run"] })
        {
            Assert.StartsWith("tiny.yaml: warning: ", (await place.RunAsync(command)).Error, StringComparison.Ordinal);
        }

        place.Edit(TinyJob.File, "keep: 2", "keep: two");
        Outcome bad = await place.RunAsync("validate", TinyJob.File, "-o", "json");
        Assert.Equal(2, bad.ExitCode);
        using JsonDocument report = JsonDocument.Parse(bad.Output);
        Assert.False(report.RootElement.GetProperty("valid").GetBoolean());
        Assert.Contains("tiny.yaml:22:9", report.RootElement.GetProperty("problems")[0].GetString(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("status")]
    [InlineData("cancel")]
    [InlineData("resume")]
    [InlineData("logs")]
    public async Task An_unknown_job_is_not_found(string verb)
    {
        using var place = new Workplace();
        Outcome outcome = await place.RunAsync(verb, "nobody");
        Assert.True(outcome.ExitCode == 3, outcome.Everything);
        Assert.Contains("\"nobody\"", outcome.Error, StringComparison.Ordinal);
        Assert.Contains("trainer list", outcome.Error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_exported_model_is_a_snapshot_that_generates_and_trains_on()
    {
        Undisturbed done = await Undisturbed.OfAsync(Undisturbed.Full);
        using var place = new Workplace();
        Directory.CreateSymbolicLink(place.PathOf("model"), done.Files.Model);
        Assert.All(["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"], file => Assert.True(File.Exists(place.PathOf($"model/{file}"))));
        string answer = await place.DoAsync("generate", "model", "Say apple 2 times.", "--max-new-tokens", "8");
        Assert.NotEmpty(answer.Trim());
        Assert.Equal(answer, await place.DoAsync("generate", "model", "Say apple 2 times.", "--max-new-tokens", "8"));
        Assert.False(Directory.Exists(place.Home));

        place.Edit(TinyJob.File, $"config: {TinyJob.Model}\n  tokenizer: tokenizer", "path: model");
        string log = await place.DoAsync("submit", TinyJob.File, "--follow", "--set", "training.steps=3");
        double trained = JsonDocument.Parse(File.ReadLines(done.Files.Metrics).Last()).RootElement.GetProperty("loss").GetDouble();
        JobView more = await place.StatusAsync("tiny");
        Assert.True(more.Loss < trained + 0.5, log);
    }

    [Fact]
    public async Task Export_writes_the_newest_checkpoint_of_a_job()
    {
        using var place = new Workplace();
        JobView job = await place.SubmitAsync();
        await place.FinishAsync(job.Id);
        await place.DoAsync("export", "tiny", "--out", "copy");
        string[] names = [.. Directory.EnumerateFiles(new JobFiles(job.Directory).Model).Select(path => Path.GetFileName(path)!)];
        Assert.Contains("model.safetensors", names);
        Assert.All(names, name => Assert.Equal(File.ReadAllBytes(Path.Combine(job.Directory, "model", name)), File.ReadAllBytes(place.PathOf($"copy/{name}"))));

        Outcome twice = await place.RunAsync("export", "tiny", "--out", "copy");
        Assert.Equal(2, twice.ExitCode);
        Assert.Contains("not empty", twice.Error, StringComparison.Ordinal);
        Outcome nowhere = await place.RunAsync("export", "tiny", "--out", "/proc/copy");
        Assert.Equal(2, nowhere.ExitCode);
        Assert.StartsWith("--out /proc/copy: nothing can be written in /proc", nowhere.Error, StringComparison.Ordinal);
        Outcome none = await place.RunAsync("export", "tiny", "--out", "other", "--step", "7");
        Assert.Equal(2, none.ExitCode);
        Assert.Contains("there are steps 30, 25", none.Error, StringComparison.Ordinal);
        Assert.False(Directory.Exists(place.PathOf("other")));
        Assert.NotEmpty((await place.DoAsync("generate", "tiny", "Say apple 2 times.", "--max-new-tokens", "8")).Trim());
    }

    [Fact]
    public async Task A_LoRA_job_exports_an_adapter_and_a_merged_model()
    {
        using var place = new Workplace();
        JobView job = await place.SubmitAsync(Undisturbed.Lora);
        job = await place.FinishAsync(job.Id);
        Assert.Equal(JobStatus.Succeeded, job.Status);
        string model = new JobFiles(job.Directory).Model;
        Assert.All(["adapter_config.json", "adapter_model.safetensors", "merged/config.json", "merged/model.safetensors"],
            file => Assert.True(File.Exists(Path.Combine(model, file)), file));
        using JsonDocument adapter = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(model, "adapter_config.json")));
        Assert.Equal(4, adapter.RootElement.GetProperty("r").GetInt32());

        await place.DoAsync("export", "tiny", "--out", "adapter");
        await place.DoAsync("export", "tiny", "--out", "merged", "--merge");
        Assert.Equal(File.ReadAllBytes(Path.Combine(model, "adapter_model.safetensors")), File.ReadAllBytes(place.PathOf("adapter/adapter_model.safetensors")));
        Assert.Equal(File.ReadAllBytes(Path.Combine(model, "merged/model.safetensors")), File.ReadAllBytes(place.PathOf("merged/model.safetensors")));
        Assert.Equal(
            await place.DoAsync("generate", "tiny", "Say river 2 times.", "--max-new-tokens", "8"),
            await place.DoAsync("generate", "merged", "Say river 2 times.", "--max-new-tokens", "8"));
    }

    [Fact]
    public async Task An_output_folder_that_was_filled_meanwhile_is_left_alone_and_the_job_fails()
    {
        using var place = new Workplace();
        string output = place.PathOf("mine");
        JobView job = await place.SubmitAsync("--set", $"output.path={output}", "--paused");
        Directory.CreateDirectory(output);
        File.WriteAllText(Path.Combine(output, "notes.txt"), "mine");
        await place.DoAsync("resume", "tiny");
        job = await place.FinishAsync(job.Id);
        Assert.Equal(JobStatus.Failed, job.Status);
        Assert.Contains($"output.path: {output} is not empty any more", job.Reason, StringComparison.Ordinal);

        // After it began: its checkpoints are there, and the model goes elsewhere.
        File.Delete(Path.Combine(output, "notes.txt"));
        JobView other = await place.SubmitAsync("--name", "other", "--set", $"output.path={output}");
        await Workplace.StepAsync(new JobFiles(other.Directory), 2);
        File.WriteAllText(Path.Combine(output, "notes.txt"), "mine");
        other = await place.FinishAsync(other.Id);
        Assert.Equal(JobStatus.Failed, other.Status);
        Assert.Contains($"{output} holds something else than this training's model", other.Reason, StringComparison.Ordinal);
        Assert.Equal("mine", File.ReadAllText(Path.Combine(output, "notes.txt")));
        Assert.Single(Directory.EnumerateFileSystemEntries(output));
        await place.DoAsync("export", other.Id.Value, "--out", "elsewhere");
        Assert.True(File.Exists(place.PathOf("elsewhere/model.safetensors")));
    }

    private static async Task<JobView> WaitingAsync(Workplace place, JobId job)
    {
        while (true)
        {
            JobView view = await place.StatusAsync(job.Value);
            if (view.Reason is not null || view.Status is not JobStatus.Queued)
            {
                return view;
            }
        }
    }
}
