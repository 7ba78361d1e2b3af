using System.Diagnostics;
using System.Text.Json;

namespace Trainer.Worker.Agent;

/// <summary>
/// Processes that have loaded the tensor library and wait for the rank that they become, so that a job need not wait for that. They
/// end with the agent that started them. One that fails is missed by nobody: ranks are started anew then.
/// </summary>
/// <param name="start">Starts one that may see this device; null on CPU slots.</param>
internal sealed class Standby(Func<string?, Process> start) : IDisposable
{
    /// <summary>What a machine of GPUs mostly has. Each costs some 100 MB of memory.</summary>
    private const int Most = 8;

    private static readonly TimeSpan s_failurePause = TimeSpan.FromMinutes(1);

    private readonly List<(Process Process, string? Device)> _waiting = [];
    private TimeSpan _notBefore;

    /// <summary>One for each of these slots: a device, or null for a CPU slot.</summary>
    /// <exception cref="System.ComponentModel.Win32Exception">None can be started.</exception>
    public void Keep(IEnumerable<string?> slots, TimeSpan now)
    {
        if (_waiting.RemoveAll(waiting => waiting.Process.HasExited) > 0)
        {
            _notBefore = now + s_failurePause;
        }
        if (now < _notBefore)
        {
            return;
        }
        List<string?> missing = [.. slots.Take(Most)];
        _waiting.ForEach(waiting => missing.Remove(waiting.Device));
        missing.ForEach(device => _waiting.Add((start(device), device)));
    }

    /// <returns>The process that is this rank from now on; null when none waits for its device.</returns>
    public Process? Become(StandbyOrder order, string? device)
    {
        while (_waiting.FindIndex(waiting => waiting.Device == device) is >= 0 and int found)
        {
            Process process = _waiting[found].Process;
            _waiting.RemoveAt(found);
            try
            {
                process.StandardInput.WriteLine(JsonSerializer.Serialize(order, StandbyJson.Default.StandbyOrder));
                process.StandardInput.Close();
                return process;
            }
            catch (IOException)
            {
                // It has ended.
                process.Dispose();
            }
        }
        return null;
    }

    public void Dispose()
    {
        foreach ((Process process, _) in _waiting)
        {
            // Also one that is still loading and reads nothing.
            process.Kill();
            process.Dispose();
        }
        _waiting.Clear();
    }
}
