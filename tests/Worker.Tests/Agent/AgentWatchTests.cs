using System.Diagnostics;
using Trainer.Contracts;
using Trainer.Worker.Agent;

namespace Trainer.Worker.Tests.Agent;

public sealed class AgentWatchTests
{
    private sealed class Clock : TimeProvider
    {
        public long Seconds { get; set; }

        public override long TimestampFrequency => 1;

        public override long GetTimestamp() => Seconds;
    }

    [Fact]
    public void An_agent_is_gone_when_it_is_silent_for_a_minute_and_its_process_is_not_there()
    {
        TrainerHome home = TrainerHome.At(Directory.CreateTempSubdirectory("ta").FullName);
        var clock = new Clock();
        var watch = new AgentWatch(home.AgentSocket, clock);
        clock.Seconds = 59;
        Assert.False(watch.IsGone);
        clock.Seconds = 60;
        Assert.True(watch.IsGone);

        // Slow, stopped or started again: it lives.
        AgentWatch.Announce(home);
        Assert.False(watch.IsGone);

        using Process other = Process.Start("sleep", "100");
        ProcessIdentity identity = ProcessTable.Find(other.Id)!;
        File.WriteAllText(home.AgentPid, FormattableString.Invariant($"{identity.Pid} {identity.StartTime}\n"));
        Assert.False(watch.IsGone);
        File.WriteAllText(home.AgentPid, FormattableString.Invariant($"{identity.Pid} {identity.StartTime - 1}\n"));
        Assert.True(watch.IsGone);
        other.Kill();
        watch.Hear();
        Assert.False(watch.IsGone);
    }

    [Fact]
    public void Time_in_which_the_agent_was_stopped_does_not_count_as_silence()
    {
        var clock = new Clock();
        var awake = new AwakeClock(clock);
        clock.Seconds = 1;
        Assert.Equal(1, awake.Now.TotalSeconds);
        clock.Seconds = 100;
        Assert.Equal(3, awake.Now.TotalSeconds);
    }

    [Fact]
    public void Devices_are_named_by_uuid_and_parts_stand_for_the_whole()
    {
        Assert.Equal<string>(["GPU-1a", "GPU-2b"], CudaDevices.Parse("GPU 0: NVIDIA H200 (UUID: GPU-1a)\nGPU 1: NVIDIA H200 (UUID: GPU-2b)\n"));
        Assert.Equal<string>(["MIG-3c"], CudaDevices.Parse("GPU 0: NVIDIA H200 (UUID: GPU-1a)\n  MIG 1g.18gb     Device  0: (UUID: MIG-3c)\n"));
        Assert.Empty(CudaDevices.Parse("No devices found.\n"));
    }
}
