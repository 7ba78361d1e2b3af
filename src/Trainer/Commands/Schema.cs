using System.CommandLine;
using System.Text.Encodings.Web;
using System.Text.Json;
using Trainer.Contracts;

namespace Trainer.Cli.Commands;

/// <summary><c>trainer schema</c>: what editors need to complete and check job files.</summary>
internal static class Schema
{
    private static readonly JsonSerializerOptions s_indented = new() { WriteIndented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    public static Command Create()
    {
        var command = new Command("schema", "Prints the JSON Schema of job files; a file names it in \"# yaml-language-server: $schema=PATH\".");
        command.SetAction(_ => Console.WriteLine(JsonSchemas.OfJob().ToJsonString(s_indented)));
        return command;
    }
}
