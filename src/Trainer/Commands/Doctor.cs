using System.CommandLine;
using System.Runtime.InteropServices;
using Nccl;
using Spectre.Console;
using Trainer.Contracts;
using Trainer.Worker.Agent;
using Trainer.Worker.Attention;
using Trainer.Worker.Checkpoints;
using Trainer.Worker.Distributed;
using Trainer.Worker.Kernels;
using Trainer.Worker.Model;
using Trainer.Worker.Verification;
using TorchSharp;
using TorchSharp.Extras;
using static TorchSharp.torch;

namespace Trainer.Cli.Commands;

/// <summary><c>trainer doctor</c>: what this machine runs, and whether it works.</summary>
internal static class Doctor
{
    private static readonly int[] s_documents = [0, 37, 100];

    public static Command Create()
    {
        var store = new Option<string?>("--store") { Description = "Also writes, reads and deletes a file in this checkpoint store" };
        var command = new Command("doctor", "Shows what this machine runs and checks that it works") { store };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var table = new Table();
            table.AddColumns("part", "found", "");
            bool healthy = true;
            foreach ((string part, Func<Task<string>> check) in Checks(parsed.GetValue(store), cancellationToken))
            {
                try
                {
                    table.AddRow(part, Markup.Escape(await check()), "[green]ok[/]");
                }
                catch (Exception e) when (e is not OperationCanceledException)
                {
                    healthy = false;
                    table.AddRow(part, Markup.Escape(e.Message), "[red]failed[/]");
                }
            }

            AnsiConsole.Write(table);
            return healthy ? 0 : 1;
        });
        return command;
    }

    private static IEnumerable<(string Part, Func<Task<string>> Check)> Checks(string? store, CancellationToken cancellationToken)
    {
        yield return ("system", () => Task.FromResult($"{RuntimeInformation.OSDescription.Trim()}, .NET {Environment.Version}, {Environment.ProcessorCount} cores"));
        yield return ("Unicode", () => "e\u0301".Normalize() == "\u00e9"
            ? Task.FromResult("NFC works")
            : throw new InvalidOperationException("NFC does not work: install libicu (apt-get install libicu72) and unset DOTNET_SYSTEM_GLOBALIZATION_INVARIANT"));
        yield return ("libtorch", () => Task.FromResult($"{loaded_version} from {loaded_path} (built for {built_version})"));
        yield return ("GPU", () => Task.FromResult(Gpu()));
        yield return ("NCCL", () => Task.FromResult(Nccl()));
        yield return ("kernels", () => Task.FromResult(CpuKernels()));
        Device device = ComputeDevice.Choose(DeviceKind.Auto);
        if (device.type == DeviceType.CUDA)
        {
            foreach (KernelResult kernel in KernelCheck.Run(device))
            {
                yield return ($"on the GPU: {kernel.Kernel}", () => Task.FromResult(Judge(kernel)));
            }
        }

        yield return ("attention", () => Task.FromResult(AttentionSelector.Choose(AttentionKind.Auto, AttentionRequest.Here(
            device, TensorTypes.Compute(DType.Auto, device), 128, slidingWindow: false, deterministic: true)).Explanation));
        yield return ("state", () => Task.FromResult(Writable(TrainerHome.FromEnvironment().Directory)));
        if (store is not null)
        {
            yield return ("store", () => StoreCheckAsync(store, cancellationToken));
        }
    }

    /// <summary>One rank alone shows that library, driver and GPU go together; the way to other GPUs it does not.</summary>
    private static string Nccl()
    {
        string found;
        try
        {
            found = NcclLibrary.Describe();
        }
        catch (DllNotFoundException) when (!cuda.is_available())
        {
            return "none; not needed on the CPU";
        }

        if (!cuda.is_available())
        {
            return $"{found}; not used: training runs on the CPU";
        }

        using DisposeScope scope = NewDisposeScope();
        TcpStore store = TcpStore.Serve("127.0.0.1", TimeSpan.FromSeconds(30));
        using var alone = new NcclCommunicator(store, ComputeDevice.Choose(DeviceKind.Cuda), rank: 0, worldSize: 1, TimeSpan.FromSeconds(30));
        Tensor value = tensor([1.5, -2]);
        alone.AllReduceSum([value]);
        return value.data<double>().ToArray() is [1.5, -2] ? $"{found}; a rank alone speaks with it" : throw new InvalidOperationException($"{found}: a sum came back wrong");
    }

    /// <summary>A GPU that the driver lists and libtorch does not see is a fault; none at all is not.</summary>
    private static string Gpu()
    {
        KernelFacts facts = KernelFacts.Probe();
        if (!cuda.is_available())
        {
            return CudaDevices.Find().IsEmpty
                ? "none: training runs on the CPU"
                : throw new InvalidOperationException(Cuda.IsBuilt
                    ? $"the driver lists {CudaDevices.Find().Length}, but libtorch sees none{(facts.GpuProblem is { } problem ? $": {problem}" : "")}"
                    : $"the driver lists {CudaDevices.Find().Length}, but native/ was built for a libtorch without CUDA: build it with the preset cuda");
        }

        return FormattableString.Invariant($"{facts.Gpu} (compute capability {facts.Capability}, {facts.Multiprocessors} multiprocessors, {facts.MemoryBytes / (double)(1L << 30):F0} GiB), ")
            + $"{cuda.device_count()} in all; driver {DriverRelease()} for CUDA {facts.Driver}; kernels built with CUDA {facts.Runtime}";
    }

    private static string DriverRelease()
    {
        const string Version = "/proc/driver/nvidia/version";
        string line = File.Exists(Version) ? File.ReadLines(Version).First() : "";
        return line.Split(' ').FirstOrDefault(word => word.Length > 0 && char.IsAsciiDigit(word[0]) && word.Contains('.', StringComparison.Ordinal)) ?? "of unknown release";
    }

    private static string Judge(KernelResult kernel)
    {
        string figures = FormattableString.Invariant($"error {kernel.Error:E1}, {kernel.Milliseconds:F3} ms forward and backward");
        return kernel.Passed ? figures : throw new InvalidOperationException(FormattableString.Invariant($"{figures}; at most {kernel.Tolerance:E1} is right: report it"));
    }

    /// <summary>Our attention against matrix products on a small case, forward and backward.</summary>
    private static string CpuKernels()
    {
        using DisposeScope scope = NewDisposeScope();
        manual_seed(1);
        Tensor[] inputs = [Random(4), Random(2), Random(2)];
        Tensor offsets = tensor(s_documents, [s_documents.Length]);
        double worst = 0;
        Tensor flash = Ops.FlashAttention(inputs[0], inputs[1], inputs[2], offsets, 0.125);
        Tensor math = MathAttention.Forward(inputs[0], inputs[1], inputs[2], offsets, 0.125, -1);
        Tensor upstream = randn_like(flash);
        IList<Tensor> a = autograd.grad([flash], inputs, [upstream]);
        IList<Tensor> b = autograd.grad([math], inputs, [upstream]);
        foreach ((Tensor x, Tensor y) in a.Append(flash).Zip(b.Append(math)))
        {
            worst = Math.Max(worst, ((x - y).abs().max() / y.abs().max()).ToDouble());
        }

        return worst < 1e-5
            ? FormattableString.Invariant($"CPU engine; attention forward and backward within {worst:E1} of matrix products")
            : throw new InvalidOperationException(FormattableString.Invariant($"attention differs from matrix products by {worst:E1}: rebuild native/, and report it if it stays"));
    }

    private static Tensor Random(int heads) => randn([100, heads, 64]).requires_grad_(true);

    private static string Writable(string directory)
    {
        string existing = directory;
        while (!Directory.Exists(existing))
        {
            existing = Path.GetDirectoryName(existing)!;
        }

        string probe = Path.Combine(existing, $".trainer-doctor-{Environment.ProcessId}");
        File.WriteAllText(probe, "");
        File.Delete(probe);
        double free = new DriveInfo(existing).AvailableFreeSpace / 1e9;
        return FormattableString.Invariant($"{directory}, {free:F0} GB free");
    }

    private static async Task<string> StoreCheckAsync(string address, CancellationToken cancellationToken)
    {
        ICheckpointStore store = CheckpointStore.Open(address);
        string path = $"doctor-{Guid.NewGuid():N}";
        if (!await store.TryCreateAsync(path, "doctor"u8.ToArray(), cancellationToken))
        {
            throw new InvalidOperationException($"{store.Address}: a file that nobody else can have made exists already");
        }

        await using (Stream stream = await store.OpenReadAsync(path, cancellationToken))
        {
            using var reader = new StreamReader(stream);
            if (await reader.ReadToEndAsync(cancellationToken) != "doctor")
            {
                throw new InvalidOperationException($"{store.Address}: what was written does not read back");
            }
        }

        await store.DeleteAsync(path, cancellationToken);
        return $"{store.Address}: written, read back, deleted";
    }
}
