using static TorchSharp.torch;

namespace Trainer.Worker.Distributed;

/// <summary>A rank alone: every sum is already there.</summary>
public sealed class SoloCommunicator : ICommunicator
{
    public int Rank => 0;

    public int WorldSize => 1;

    public void AllReduceSum(IReadOnlyList<Tensor> tensors)
    {
    }

    public void Broadcast(Tensor tensor, int root)
    {
    }

    public void Barrier()
    {
    }

    public void Dispose()
    {
    }
}
