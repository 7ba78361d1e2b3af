using Trainer.Contracts;

namespace Trainer.Worker.Agent;

/// <summary>
/// Tells a rank when its agent is gone for good: it has not answered for a minute, and the process that agent.pid names does not
/// live. An agent that is only slow, stopped or started again is not gone.
/// </summary>
internal sealed class AgentWatch(string socket, TimeProvider time)
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    private readonly TrainerHome _home = new(Path.GetDirectoryName(Path.GetFullPath(socket))!);
    private long _heard = time.GetTimestamp();

    public bool IsGone => time.GetElapsedTime(_heard) >= s_patience && !LivingAgent();

    /// <summary>Says to the ranks of this home that this process is their agent.</summary>
    public static void Announce(TrainerHome home) => IdentityFile.Write(home.AgentPid, ProcessTable.Find(Environment.ProcessId)!);

    /// <summary>The agent answered.</summary>
    public void Hear() => _heard = time.GetTimestamp();

    private bool LivingAgent() => IdentityFile.Read(_home.AgentPid) is { } agent && ProcessTable.IsAlive(agent);
}
