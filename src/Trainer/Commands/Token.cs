using System.CommandLine;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Trainer.Contracts;

namespace Trainer.Cli.Commands;

/// <summary><c>trainer token --role user --project P --file tokens.json</c>: makes a token for "trainer serve --tokens".</summary>
internal static class Token
{
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
            AccessEntry[] entries = File.Exists(path) ? Read(path) : [];
            string token = "trn_" + Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(32));
            var entry = new AccessEntry
            {
                Sha256 = Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(token))),
                Role = given,
                Project = options.GetValue(project),
                Note = options.GetValue(note),
            };
            string next = path + ".next";
            using (var stream = new FileStream(next, new FileStreamOptions
            {
                Mode = FileMode.Create, Access = FileAccess.Write, UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite,
            }))
            {
                JsonSerializer.Serialize(stream, [.. entries, entry], ContractsJson.Default.AccessEntryArray);
            }
            File.Move(next, path, overwrite: true);
            Console.WriteLine(token);
            return ExitCode.Succeeded;
        });
        return command;
    }

    private static AccessEntry[] Read(string path)
    {
        try
        {
            return JsonSerializer.Deserialize(File.ReadAllText(path), ContractsJson.Default.AccessEntryArray) ?? [];
        }
        catch (JsonException error)
        {
            throw new ConfigException($"{path}: not a list of tokens: {error.Message}");
        }
    }
}
