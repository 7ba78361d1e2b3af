using System.CommandLine;
using Trainer.Contracts;
using Trainer.Worker.Data;
using Trainer.Worker.Export;
using Trainer.Worker.Training;
using static TorchSharp.torch;

namespace Trainer.Cli.Commands;

/// <summary><c>trainer generate JOB|DIR "prompt"</c>: what a checkpoint, or a snapshot, answers.</summary>
internal static class Generate
{
    public static Command Create()
    {
        var source = new Argument<string>("JOB|DIR") { Description = "A job, or a Hugging Face snapshot." };
        var prompt = new Argument<string>("PROMPT") { Description = "A user message; - reads it from standard input." };
        var step = new Option<long?>("--step") { Description = "The job's checkpoint of this step. Default: the newest good one.", HelpName = "N" };
        var system = new Option<string?>("--system") { Description = "A system message." };
        var raw = new Option<bool>("--raw") { Description = "Continues the text as it stands, without the chat template." };
        var noThinking = new Option<bool>("--no-thinking") { Description = "Qwen3: answers without a thought." };
        var tokens = new Option<int>("--max-new-tokens") { DefaultValueFactory = _ => 256, HelpName = "N" };
        var temperature = new Option<double>("--temperature") { Description = "0 takes the likeliest token each time.", DefaultValueFactory = _ => 0 };
        var seed = new Option<int>("--seed") { Description = "Decides the draws.", DefaultValueFactory = _ => 42 };
        var command = new Command("generate", "Continues a prompt with a job's model or a snapshot.") { source, prompt, step, system, raw, noThinking, tokens, temperature, seed };
        command.SetAction(async (options, cancellationToken) =>
        {
            if (options.GetValue(tokens) < 1 || options.GetValue(temperature) is not (>= 0 and <= 100))
            {
                throw new ConfigException("--max-new-tokens is at least 1, and --temperature 0 to 100");
            }
            string text = options.GetRequiredValue(prompt);
            text = text == "-" ? await Console.In.ReadToEndAsync(cancellationToken) : text;
            set_num_threads(Environment.ProcessorCount);
            using JobModel model = await LoadAsync(options.GetRequiredValue(source), options.GetValue(step), cancellationToken);
            int[] ids = options.GetValue(raw)
                ? model.Tokenizer.Encode(text)
                : model.Template.Prompt(Conversation(options.GetValue(system), text), model.Tokenizer, thinking: !options.GetValue(noThinking));
            if (ids.Length == 0)
            {
                throw new ConfigException("the prompt is empty; give at least one character");
            }

            var stream = new TokenStream(model.Tokenizer);
            foreach (int token in TextGenerator.Continue(
                model.Model, ids, options.GetValue(tokens), options.GetValue(temperature), model.Tokenizer.EndTokens, options.GetValue(seed)))
            {
                cancellationToken.ThrowIfCancellationRequested();
                if (!model.Tokenizer.EndTokens.Contains(token))
                {
                    Console.Write(stream.Append(token));
                }
            }

            Console.WriteLine(stream.Finish());
            return ExitCode.Succeeded;
        });
        return command;
    }

    private static async Task<JobModel> LoadAsync(string source, long? step, CancellationToken cancellationToken)
    {
        if (File.Exists(Path.Combine(source, "config.json")) && !Directory.Exists(Path.Combine(source, "attempt-1")))
        {
            var job = new JobConfig { Name = "generate", Model = new ModelConfig { Path = Path.GetFullPath(source) }, Data = new DataConfig { Train = [] } };
            return JobModel.Load(job, Console.Error.WriteLine);
        }

        if (Directory.Exists(source))
        {
            throw new ConfigException($"{source}: a directory without config.json is no Hugging Face snapshot"
                + (File.Exists(Path.Combine(source, PeftAdapter.ConfigFile)) ? "; this is a PEFT adapter: merge it with \"trainer export JOB --merge\" first" : ""));
        }
        JobFiles files = await Shared.FilesAsync(source, cancellationToken);
        return (await TrainedModel.LoadAsync(files, step, best: false, Console.Error.WriteLine, cancellationToken)).Model;
    }

    private static Conversation Conversation(string? system, string user) =>
        new(system is null ? [new Message("user", user)] : [new Message("system", system), new Message("user", user)]);
}
