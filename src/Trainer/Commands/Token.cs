using System.CommandLine;
using System.Diagnostics;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Trainer.Contracts;

namespace Trainer.Cli.Commands;

/// <summary><c>trainer token --role user --project P --file tokens.json</c>: makes a token for "trainer serve --tokens".</summary>
internal static class Token
{
    private static readonly TimeSpan s_often = TimeSpan.FromMilliseconds(20);
    private static readonly TimeSpan s_turnTakes = TimeSpan.FromSeconds(20);

    public static Command Create()
    {
        var role = new Option<string>("--role") { Description = "user (jobs of one project), worker (an agent), monitor (reads /metrics) or admin.", Required = true };
        role.AcceptOnlyFromAmong("user", "worker", "monitor", "admin");
        var project = new Option<string?>("--project") { Description = "Whose jobs a user sees." };
        var file = new Option<string>("--file") { Description = "The list that the token's hash is added to.", Required = true, HelpName = "FILE" };
        var note = new Option<string?>("--note") { Description = "Kept beside it in the list." };
        var command = new Command("token", "Makes an access token, prints it once and adds its hash to a list.") { role, project, file, note };
        command.SetAction(options =>
        {
            string given = options.GetRequiredValue(role), path = options.GetRequiredValue(file);
            if ((given == "user") != options.GetValue(project) is { Length: > 0 })
            {
                throw new ConfigException("a token of role user needs --project, and others have none");
            }
            if (given == "user" && !JobId.TryParse(options.GetValue(project), out _))
            {
                throw new ConfigException($"--project {options.GetValue(project)}: lower-case letters, digits, '-', '.' and '_' are expected, as in the name of a job");
            }
            string token = "trn_" + Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(32));
            var entry = new AccessEntry
            {
                Sha256 = Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(token))),
                Role = given,
                Project = options.GetValue(project),
                Note = options.GetValue(note),
            };
            using (FileStream turn = TakeTurn(path))
            {
                Add(entry, path);
            }
            Console.WriteLine(token);
            return ExitCode.Succeeded;
        });
        return command;
    }

    /// <summary>One writer at a time; whoever reads sees the list before or after.</summary>
    private static void Add(AccessEntry entry, string path)
    {
        AccessEntry[] entries = File.Exists(path) ? AccessEntry.ReadList(path) : [];
        string next = $"{path}.{Environment.ProcessId}.next";
        using (FileStream stream = OpenOwn(next, FileMode.Create))
        {
            JsonSerializer.Serialize(stream, [.. entries, entry], ContractsJson.Default.AccessEntryArray);
        }
        File.Move(next, path, overwrite: true);
    }

    /// <summary>The lock stays: a file that is removed and made anew could be locked twice.</summary>
    private static FileStream TakeTurn(string path)
    {
        long start = Stopwatch.GetTimestamp();
        while (true)
        {
            try
            {
                return OpenOwn($"{path}.lock", FileMode.OpenOrCreate);
            }
            catch (IOException) when (File.Exists($"{path}.lock") && Stopwatch.GetElapsedTime(start) < s_turnTakes)
            {
                Thread.Sleep(s_often);
            }
        }
    }

    private static FileStream OpenOwn(string path, FileMode mode) => new(path, new FileStreamOptions
    {
        Mode = mode, Access = FileAccess.Write, Share = FileShare.None, UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite,
    });
}
