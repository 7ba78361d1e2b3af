using static TorchSharp.torch;

namespace Trainer.Worker.Model;

/// <summary>Keys and values of one layer during generation, grown by doubling.</summary>
public sealed class KeyValueCache : IDisposable
{
    private Tensor? _keys;
    private Tensor? _values;
    private long _length;

    /// <summary>Adds [S, M, H] and returns everything so far, [length, M, H] each.</summary>
    public (Tensor Keys, Tensor Values) Append(Tensor k_SMH, Tensor v_SMH)
    {
        long added = k_SMH.shape[0];
        _keys = Reserve(_keys, k_SMH, _length + added);
        _values = Reserve(_values, v_SMH, _length + added);
        _keys.narrow(0, _length, added).copy_(k_SMH);
        _values.narrow(0, _length, added).copy_(v_SMH);
        _length += added;
        return (_keys.narrow(0, 0, _length), _values.narrow(0, 0, _length));
    }

    public void Dispose()
    {
        _keys?.Dispose();
        _values?.Dispose();
    }

    private Tensor Reserve(Tensor? buffer, Tensor like, long length)
    {
        if (buffer is not null && buffer.shape[0] >= length)
        {
            return buffer;
        }

        long[] shape = [Math.Max(64, length * 2), like.shape[1], like.shape[2]];
        Tensor larger = empty(shape, dtype: like.dtype, device: like.device).DetachFromDisposeScope();
        if (buffer is not null)
        {
            larger.narrow(0, 0, _length).copy_(buffer.narrow(0, 0, _length));
            buffer.Dispose();
        }

        return larger;
    }
}
