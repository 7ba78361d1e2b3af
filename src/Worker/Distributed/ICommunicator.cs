using static TorchSharp.torch;

namespace Trainer.Worker.Distributed;

/// <summary>
/// The ranks that train together. Every rank calls the same collectives in the same order, from one thread; a collective
/// returns when this rank's part is done.
/// </summary>
/// <exception cref="CollectiveException">Of every collective: a rank died or answered too late; there is no going on.</exception>
public interface ICommunicator : IDisposable
{
    /// <summary>From 0.</summary>
    int Rank { get; }

    int WorldSize { get; }

    /// <summary>In place; afterwards the same bits on every rank, and in every run with as many ranks.</summary>
    /// <param name="tensors">Contiguous float32, float64 or int64, of one shape each on all ranks.</param>
    void AllReduceSum(IReadOnlyList<Tensor> tensors);

    /// <summary>In place: every rank gets the root's tensor.</summary>
    void Broadcast(Tensor tensor, int root);

    /// <summary>Returns when all ranks have come here.</summary>
    void Barrier();
}
