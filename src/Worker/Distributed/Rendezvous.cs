using System.Globalization;
using TorchSharp;
using TorchSharp.Extras;
using static TorchSharp.torch;

namespace Trainer.Worker.Distributed;

/// <summary>
/// How the ranks of an attempt find each other: rank 0 serves a store and announces where, the coordinator tells the others.
/// </summary>
/// <param name="host">The address under which the other ranks reach this one.</param>
public sealed class Rendezvous(int rank, int worldSize, string host)
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(120);

    private readonly TaskCompletionSource<string> _told = new(TaskCreationOptions.RunContinuationsAsynchronously);

    private volatile bool _isPending = worldSize > 1;

    /// <summary>This rank has not met the others yet. Read from any thread.</summary>
    public bool IsPending => _isPending;

    /// <summary>Where rank 0 is, from the coordinator; any number of times.</summary>
    public void Tell(string endpoint) => _told.TrySetResult(endpoint);

    /// <summary>Meets the other ranks.</summary>
    /// <param name="device">What this rank trains on, and all others must: ranks of GPUs speak over NCCL, those of CPUs over Gloo.</param>
    /// <param name="announce">Rank 0: makes its "host:port" known.</param>
    /// <exception cref="CollectiveException">They did not come in time.</exception>
    public ICommunicator Join(Device device, Action<string> announce)
    {
        if (worldSize == 1)
        {
            return new SoloCommunicator();
        }

        TcpStore store = rank == 0 ? Serve(announce) : Connect();
        Meet(store, device.type == DeviceType.CUDA ? "GPU" : "CPU");
        ICommunicator communicator = device.type == DeviceType.CUDA
            ? new NcclCommunicator(store, device, rank, worldSize, s_patience)
            : new GlooCommunicator(store, host, rank, worldSize);
        _isPending = false;
        return communicator;
    }

    private TcpStore Serve(Action<string> announce)
    {
        TcpStore store = TcpStore.Serve(host, s_patience);
        announce(string.Create(CultureInfo.InvariantCulture, $"{host}:{store.Port}"));
        return store;
    }

    private TcpStore Connect()
    {
        if (!_told.Task.Wait(s_patience))
        {
            throw Failed($"rank 0 was not announced within {s_patience.TotalSeconds} s");
        }

        string endpoint = _told.Task.Result;
        int colon = endpoint.LastIndexOf(':');
        if (colon < 1 || !int.TryParse(endpoint.AsSpan(colon + 1), NumberStyles.None, CultureInfo.InvariantCulture, out int port))
        {
            throw Failed($"\"{endpoint}\" is no host:port");
        }

        try
        {
            return TcpStore.Connect(endpoint[..colon], port, s_patience);
        }
        catch (TorchException e)
        {
            throw Failed($"rank 0 does not answer on {endpoint}: {e.Message}");
        }
    }

    private void Meet(TcpStore store, string device)
    {
        try
        {
            store.Meet(device, rank, worldSize, s_patience);
        }
        catch (TorchException e)
        {
            store.Dispose();
            throw Failed(e.Message);
        }
    }

    private CollectiveException Failed(string reason) => new($"rank {rank} of {worldSize}: rendezvous: {reason}");
}
