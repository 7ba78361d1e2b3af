using System.CommandLine;
using Trainer.Contracts;
using Trainer.Worker.Export;
using Trainer.Worker.Training;
using static TorchSharp.torch;

namespace Trainer.Cli.Commands;

/// <summary><c>trainer export JOB --out DIR</c>: a checkpoint as Hugging Face safetensors or a PEFT adapter.</summary>
internal static class Export
{
    public static Command Create()
    {
        Argument<string> id = Shared.Job();
        var folder = new Option<string>("--out") { Description = "Where to write; must not exist or be empty.", Required = true, HelpName = "DIR" };
        var step = new Option<long?>("--step") { Description = "The checkpoint of this step. Default: the newest good one.", HelpName = "N" };
        var best = new Option<bool>("--best") { Description = "The checkpoint with the lowest evaluation loss." };
        var merge = new Option<bool>("--merge") { Description = "LoRA: the merged model instead of the adapter." };
        var dtype = new Option<string?>("--dtype") { Description = "float32, bfloat16 or float16. Default: the base snapshot's." };
        dtype.AcceptOnlyFromAmong("float32", "bfloat16", "float16");
        var command = new Command("export", "Writes a job's model as Hugging Face safetensors (LoRA: a PEFT adapter).") { id, folder, step, best, merge, dtype };
        command.SetAction(async (options, cancellationToken) =>
        {
            if (options.GetValue(best) && options.GetValue(step) is { } one)
            {
                throw new ConfigException($"--best and --step {one} may be two checkpoints; give one of them");
            }
            string target = Shared.OutFolder(options.GetRequiredValue(folder));
            JobFiles files = await Shared.FilesAsync(options.GetRequiredValue(id), cancellationToken);
            set_num_threads(Environment.ProcessorCount);
            (JobModel loaded, JobConfig job, long at) = await TrainedModel.LoadAsync(
                files, options.GetValue(step), options.GetValue(best), Console.Error.WriteLine, cancellationToken);
            using JobModel model = loaded;
            if (options.GetValue(merge) && model.Model.Lora is null)
            {
                throw new ConfigException("--merge is for LoRA jobs; this one trained the whole model, so leave it out");
            }
            ScalarType written = options.GetValue(dtype) switch
            {
                "float32" => ScalarType.Float32,
                "bfloat16" => ScalarType.BFloat16,
                "float16" => ScalarType.Float16,
                _ => ModelExport.Dtype(model.Model, job),
            };
            var export = new ModelExport(model.Model, model.TokenizerDirectory, written, system: job.Data.System);
            await (model.Model.Lora is null || options.GetValue(merge)
                ? export.WriteModelAsync(target, cancellationToken)
                : export.WriteAdapterAsync(target, job.Model.Path, cancellationToken));
            Console.WriteLine($"step {at} written to {target}");
            return ExitCode.Succeeded;
        });
        return command;
    }
}
