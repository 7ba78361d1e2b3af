using Nccl;
using TorchSharp;
using TorchSharp.Extras;
using static TorchSharp.torch;

namespace Trainer.Worker.Distributed;

/// <summary>
/// Ranks of one GPU each. What lies on the CPU goes by way of the GPU. A rank that died is seen where NCCL speaks over the network;
/// within a machine the others wait until the coordinator, which sees processes end, ends them as well.
/// </summary>
public sealed class NcclCommunicator : ICommunicator
{
    private const string IdKey = "nccl-id";

    /// <summary>As long as Gloo's, for the same reason.</summary>
    private static readonly TimeSpan s_timeout = TimeSpan.FromDays(1);

    private readonly TcpStore _store;
    private readonly Device _device;
    private readonly Communicator _nccl;

    /// <summary>Connects the ranks, which have met in the store; it is the communicator's to dispose from here on.</summary>
    /// <param name="device">The GPU of this rank and of no other.</param>
    public NcclCommunicator(TcpStore store, Device device, int rank, int worldSize, TimeSpan joinTimeout)
    {
        Rank = rank;
        WorldSize = worldSize;
        _store = store;
        _device = device;
        try
        {
            // NCCL takes the GPU that is current, and only a context makes it so.
            Cuda.Synchronize();
            _nccl = Communicator.Create(ExchangeId(), rank, worldSize, joinTimeout);
        }
        catch (Exception e) when (e is NcclException or TorchException or DllNotFoundException)
        {
            store.Dispose();
            throw e is DllNotFoundException ? new JobInputException($"resources.ranks: several ranks on GPUs need NCCL. {e.Message}; or set it to 1") : Failed(e);
        }
    }

    public int Rank { get; }

    public int WorldSize { get; }

    public void AllReduceSum(IReadOnlyList<Tensor> tensors) =>
        Do(tensors, (buffers, stream) => _nccl.AllReduce(buffers, ReduceOp.Sum, stream, s_timeout));

    public void Broadcast(Tensor tensor, int root) => Do([tensor], (buffers, stream) => _nccl.Broadcast(buffers, root, stream, s_timeout));

    public void Barrier()
    {
        using DisposeScope scope = NewDisposeScope();
        AllReduceSum([zeros([1], ScalarType.Float32, _device)]);
    }

    public void Dispose()
    {
        _nccl.Dispose();
        _store.Dispose();
    }

    private UniqueId ExchangeId()
    {
        if (Rank == 0)
        {
            UniqueId id = UniqueId.Create();
            _store.Set(IdKey, id.ToArray());
            return id;
        }

        byte[] bytes = new byte[UniqueId.Size];
        _store.Get(IdKey, bytes);
        return UniqueId.From(bytes);
    }

    private void Do(IReadOnlyList<Tensor> tensors, Action<DeviceBuffer[], nint> collective)
    {
        using DisposeScope scope = NewDisposeScope();
        using var _ = no_grad();
        Tensor[] onGpu = [.. tensors.Select(tensor => tensor.to(_device))];
        try
        {
            nint stream = Cuda.CurrentStream(_device);
            collective([.. onGpu.Select(Buffer)], stream);
            _nccl.Wait(stream, s_timeout);
        }
        catch (NcclException e)
        {
            throw Failed(e);
        }

        for (int i = 0; i < tensors.Count; i++)
        {
            if (tensors[i].device_type == DeviceType.CPU)
            {
                tensors[i].copy_(onGpu[i]);
            }
        }
    }

    private DeviceBuffer Buffer(Tensor tensor) => !tensor.is_contiguous()
        ? throw new ArgumentException("the tensor must be contiguous", nameof(tensor))
        : new DeviceBuffer(tensor.DataPointer, tensor.numel(), tensor.dtype switch
        {
            ScalarType.Float32 => DataType.Float32,
            ScalarType.Float64 => DataType.Float64,
            ScalarType.Int64 => DataType.Int64,
            _ => throw new ArgumentException($"float32, float64 or int64 is wanted, not {tensor.dtype}", nameof(tensor)),
        });

    private CollectiveException Failed(Exception e) => new($"rank {Rank} of {WorldSize}: {e.Message}", e);
}
