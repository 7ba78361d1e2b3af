using System.CommandLine;
using System.Text.Json;
using System.Text.Json.Serialization;
using Spectre.Console;
using Trainer.Contracts;
using Trainer.Worker.Verification;

namespace Trainer.Cli.Commands;

/// <summary><c>trainer verify FOLDER...</c>: golden cases, and with --tokenizer and --tokens token ids.</summary>
internal static class Verify
{
    public static Command Create()
    {
        var folders = new Argument<string[]>("folder") { Arity = ArgumentArity.ZeroOrMore, Description = "Golden cases: a Hugging Face snapshot with golden.json and golden.safetensors" };
        var tokenizer = new Option<string?>("--tokenizer") { Description = "Folder with tokenizer.json, to check --tokens" };
        var tokens = new Option<string?>("--tokens") { Description = "A tokens.json of golden token ids and chats" };
        Option<TemplateKind> template = Shared.Choice<TemplateKind>("--template", "Chat template of --tokens; auto: the tokenizer's own");
        Option<AttentionKind> attention = Shared.Choice<AttentionKind>("--attention", "Which attention; auto: the best that runs here");
        Option<DeviceKind> device = Shared.Choice<DeviceKind>("--device", "cpu, cuda, or auto: a GPU where there is one");
        Option<string> output = Shared.Format();
        var command = new Command("verify", "Compares this installation's numbers with values computed by transformers and peft") { folders, tokenizer, tokens, template, attention, device, output };
        command.SetAction(parsed =>
        {
            string[] cases = parsed.GetValue(folders) ?? [];
            (string? directory, string? file) = (parsed.GetValue(tokenizer), parsed.GetValue(tokens));
            if ((directory is null) != (file is null) || (cases.Length == 0 && file is null))
            {
                throw new ConfigException("verify takes folders, or --tokenizer DIR with --tokens FILE; e.g. trainer verify tests/golden/qwen3-untied");
            }

            bool passed = true;
            foreach (Func<CaseResult> run in Runs(cases, parsed.GetValue(attention), parsed.GetValue(device), directory, file, parsed.GetValue(template)))
            {
                CaseResult result = run();
                passed &= result.Passed;
                Show(result, parsed.GetValue(output));
            }

            return passed ? 0 : 1;
        });
        return command;
    }

    private static IEnumerable<Func<CaseResult>> Runs(string[] cases, AttentionKind attention, DeviceKind device, string? tokenizer, string? tokens, TemplateKind template)
    {
        foreach (string folder in cases)
        {
            yield return () =>
            {
                using GoldenCase golden = GoldenCase.Open(folder);
                return new Verifier(golden, attention, device).Run();
            };
        }

        if (tokenizer is not null)
        {
            yield return () => TokenVerifier.Run(tokenizer, tokens!, template);
        }
    }

    private static void Show(CaseResult result, string? output)
    {
        if (output == "json")
        {
            Console.WriteLine(JsonSerializer.Serialize(result, VerifyJson.Default.CaseResult));
            return;
        }

        var table = new Table().Title($"{Markup.Escape(result.Case)}: {(result.Passed ? "[green]passed[/]" : "[red]failed[/]")}");
        table.AddColumns("check", "error", "tolerance", "");
        foreach (IGrouping<string, Check> group in result.Checks.GroupBy(Summary))
        {
            Check worst = group.MaxBy(check => double.IsNaN(check.Error) ? double.MaxValue : check.Error / Math.Max(check.Tolerance, double.Epsilon))!;
            int failed = group.Count(check => !check.Passed);
            table.AddRow(
                Markup.Escape(group.Count() > 1 ? $"{group.Key} ({group.Count()}), worst: {worst.Name}" : worst.Name),
                worst.Error.ToString("0.0e+0", System.Globalization.CultureInfo.InvariantCulture),
                worst.Tolerance.ToString("0.0e+0", System.Globalization.CultureInfo.InvariantCulture),
                failed == 0 ? "passed" : $"[red]{failed} failed[/]");
        }

        AnsiConsole.Write(table);
    }

    /// <summary>Checks of one kind share a row of the table.</summary>
    private static string Summary(Check check)
    {
        string[] words = check.Name.Split(' ');
        return words switch
        {
            [var path, "gradient", ..] => $"{path} gradients",
            [var path, "step", _, ..] => $"{path} steps: {string.Join(' ', words[3..])}",
            [("text" or "chat") and var kind, _, var what] => $"{kind}s: {what}",
            _ => check.Name,
        };
    }
}

[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower,
    NumberHandling = JsonNumberHandling.AllowNamedFloatingPointLiterals)]
[JsonSerializable(typeof(CaseResult))]
internal sealed partial class VerifyJson : JsonSerializerContext;
