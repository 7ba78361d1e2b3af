using System.Globalization;
using Trainer.Contracts;

namespace Trainer.EndToEnd.Tests;

/// <summary>Keys and tokens stay in the environment of the processes that need them.</summary>
public sealed class SecretTests
{
    private const string AccountKey = "secret key of the blob store";

    [Fact]
    public async Task No_token_and_no_account_key_is_in_a_file_a_log_or_an_answer()
    {
        using var place = new Workplace();
        string url = $"http://127.0.0.1:{FreePort.Take().ToString(CultureInfo.InvariantCulture)}", tokens = place.PathOf("tokens.json");
        string admin = (await place.DoAsync("token", "--role", "admin", "--file", tokens)).Trim();
        string worker = (await place.DoAsync("token", "--role", "worker", "--file", tokens)).Trim();
        string user = (await place.DoAsync("token", "--role", "user", "--project", "p", "--file", tokens)).Trim();
        // The key is no base64, which the job says.
        place.Environment["AZURE_STORAGE_CONNECTION_STRING"] =
            $"DefaultEndpointsProtocol=http;AccountName=account;AccountKey={AccountKey};BlobEndpoint=http://127.0.0.1:1/account;";
        using TrainerProgram serve = place.Start("serve", "--no-worker", "--listen", url, "--tokens", tokens);
        place.Environment["TRAINER_COORDINATOR"] = url;
        using TrainerProgram agent = TrainerProgram.Start(place.Folder, new Dictionary<string, string>(place.Environment)
        {
            ["TRAINER_TOKEN"] = worker, ["TRAINER_HOME"] = place.PathOf("w1"),
        }, "worker", "--name", "w1", "--slots", "1");
        var answers = new List<string>();
        place.Environment["TRAINER_TOKEN"] = "trn_wrong-secret-token";
        await Cluster.UntilAsync(async () => await AskAsync("list") == 4 && answers[^1].Contains("a valid token is needed", StringComparison.Ordinal), "a coordinator that refuses the token");
        foreach (string token in new[] { "trn_wrong-secret-token", user })
        {
            Outcome refused = await RefusedAgentAsync(token);
            Assert.True(refused.ExitCode == 4, refused.Everything);
            Assert.Contains("refuses this agent's token", refused.Error, StringComparison.Ordinal);
            answers.Add(refused.Everything);
        }
        place.Environment["TRAINER_TOKEN"] = user;
        Assert.Equal(0, await AskAsync("submit", TinyJob.File, "--set", "checkpoint.store=azblob://box/tiny"));

        await Cluster.UntilAsync(async () => await AskAsync("status", "tiny") == 0 && answers[^1].Contains("failed", StringComparison.Ordinal), "the failure");
        foreach (string verb in new[] { "events", "logs" })
        {
            Assert.Equal(0, await AskAsync(verb, "tiny"));
        }
        await AskAsync("logs", "tiny", "--stderr");
        place.Environment["TRAINER_COORDINATOR"] = "http://somebody:secret-password@127.0.0.1:1";
        Assert.Equal(2, await AskAsync("list"));
        LinuxProcesses.Signal(agent.Pid, LinuxProcesses.Kill);
        LinuxProcesses.Signal(serve.Pid, LinuxProcesses.Kill);
        answers.Add((await agent.WaitAsync()).Everything);
        answers.Add((await serve.WaitAsync()).Everything);

        string[] secrets = [AccountKey, admin, worker, user, "trn_wrong-secret-token", "secret-password"];
        foreach (string secret in secrets)
        {
            Assert.All(answers, answer => Assert.DoesNotContain(secret, answer, StringComparison.Ordinal));
            Assert.All(Directory.EnumerateFiles(place.Folder, "*", SearchOption.AllDirectories).Where(file => !file.EndsWith(".sock", StringComparison.Ordinal)),
                file => Assert.True(File.ReadAllBytes(file).AsSpan().IndexOf(System.Text.Encoding.UTF8.GetBytes(secret)) < 0, $"{file} holds {secret[..8]}..."));
        }
        foreach (int pid in LinuxProcesses.WithVariable("TRAINER_HOME", place.PathOf("w1")))
        {
            LinuxProcesses.Signal(pid, LinuxProcesses.Kill);
        }

        async Task<Outcome> RefusedAgentAsync(string token)
        {
            using TrainerProgram refused = TrainerProgram.Start(place.Folder, new Dictionary<string, string>(place.Environment)
            {
                ["TRAINER_TOKEN"] = token, ["TRAINER_HOME"] = place.PathOf("w2"),
            }, "worker", "--name", "w2", "--slots", "1");
            return await refused.WaitAsync();
        }

        async Task<int> AskAsync(params string[] arguments)
        {
            Outcome outcome = await place.RunAsync(arguments);
            answers.Add(outcome.Everything);
            return outcome.ExitCode;
        }
    }
}
