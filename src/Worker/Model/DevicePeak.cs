using static TorchSharp.torch;

namespace Trainer.Worker.Model;

/// <summary>What GPUs do at most, as their makers say: dense products of bfloat16 or float16, summed in float32.</summary>
internal static class DevicePeak
{
    private const double Tera = 1e12;

    /// <summary>By the beginning of the driver's name; the longer ones first.</summary>
    private static readonly (string Name, double Flops)[] s_peaks =
    [
        ("NVIDIA B200", 2250 * Tera),
        ("NVIDIA GH200", 989.4 * Tera),
        ("NVIDIA H200 NVL", 835.5 * Tera),
        ("NVIDIA H200", 989.4 * Tera),
        ("NVIDIA H100 NVL", 835.5 * Tera),
        ("NVIDIA H100 PCIe", 756 * Tera),
        ("NVIDIA H100", 989.4 * Tera),
        ("NVIDIA H20", 148 * Tera),
        ("NVIDIA A100", 312 * Tera),
        ("NVIDIA A30", 165 * Tera),
        ("NVIDIA A10", 125 * Tera),
        ("NVIDIA L40S", 362 * Tera),
        ("NVIDIA L4", 121 * Tera),
    ];

    /// <summary>Null where it is unknown: another chip, a part of one, or numbers that these units do not multiply.</summary>
    public static double? Find(string gpu, ScalarType dtype)
    {
        if (dtype is not (ScalarType.BFloat16 or ScalarType.Float16) || gpu.Contains("MIG", StringComparison.Ordinal))
        {
            return null;
        }
        // "NVIDIA A10" is no beginning of "NVIDIA A100" or "NVIDIA A10G": the name ends there, or goes on with a space or a dash.
        return s_peaks.FirstOrDefault(peak => gpu.StartsWith(peak.Name, StringComparison.Ordinal)
            && (gpu.Length == peak.Name.Length || gpu[peak.Name.Length] is ' ' or '-')) is { Name: not null } found ? found.Flops : null;
    }
}
