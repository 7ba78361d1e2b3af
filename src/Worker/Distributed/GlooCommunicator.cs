using TorchSharp;
using TorchSharp.Extras;
using static TorchSharp.torch;

namespace Trainer.Worker.Distributed;

/// <summary>Ranks of CPU tensors over TCP. A rank that dies resets its connections, which fails the others' collectives at once.</summary>
public sealed class GlooCommunicator : ICommunicator
{
    /// <summary>
    /// Longer than anything that rank 0 does alone while the others wait (an evaluation, a large export). A rank that hangs is
    /// the coordinator's to find and kill, which ends the wait.
    /// </summary>
    private static readonly TimeSpan s_timeout = TimeSpan.FromDays(1);

    private readonly TcpStore _store;
    private readonly GlooGroup _group;

    /// <summary>Connects the ranks, which have met in the store; it is the communicator's to dispose from here on.</summary>
    /// <param name="host">The address under which the other ranks reach this one.</param>
    public GlooCommunicator(TcpStore store, string host, int rank, int worldSize)
    {
        Rank = rank;
        WorldSize = worldSize;
        _store = store;
        try
        {
            _group = new GlooGroup(store, host, rank, worldSize, s_timeout);
        }
        catch (TorchException e)
        {
            store.Dispose();
            throw Failed(e);
        }
    }

    public int Rank { get; }

    public int WorldSize { get; }

    public void AllReduceSum(IReadOnlyList<Tensor> tensors)
    {
        foreach (Tensor tensor in tensors)
        {
            Do(() => _group.AllReduceSum(tensor));
        }
    }

    public void Broadcast(Tensor tensor, int root) => Do(() => _group.Broadcast(tensor, root));

    public void Barrier() => Do(_group.Barrier);

    public void Dispose()
    {
        _group.Dispose();
        _store.Dispose();
    }

    private void Do(Action collective)
    {
        try
        {
            collective();
        }
        catch (TorchException e)
        {
            throw Failed(e);
        }
    }

    private CollectiveException Failed(TorchException e) => new($"rank {Rank} of {WorldSize}: {e.Message}", e);
}
