using static TorchSharp.torch;

namespace Trainer.Worker.Model;

/// <summary>cos and sin of position * theta^(-2i/H), float32 [positions, H/2], grown as positions ask for it.</summary>
public sealed class RotaryTable(int headDim, double theta, Device device) : IDisposable
{
    private Tensor? _cos;
    private Tensor? _sin;
    private long _length;

    /// <summary>Rows of <paramref name="positions"/> (int64 [T]), none beyond <paramref name="last"/>.</summary>
    public (Tensor Cos, Tensor Sin) Gather(Tensor positions, int last)
    {
        if (last >= _length)
        {
            Grow(Math.Max(last + 1, 2 * (int)_length));
        }

        return (_cos!.index_select(0, positions), _sin!.index_select(0, positions));
    }

    public void Dispose()
    {
        _cos?.Dispose();
        _sin?.Dispose();
    }

    private void Grow(int length)
    {
        // In float32 throughout, as transformers does: positions times frequencies round to the same angles.
        int half = headDim / 2;
        var frequencies = new float[half];
        for (int i = 0; i < half; i++)
        {
            frequencies[i] = 1f / MathF.Pow((float)theta, (float)(2 * i) / headDim);
        }

        var cos = new float[length * half];
        var sin = new float[length * half];
        for (int position = 0; position < length; position++)
        {
            for (int i = 0; i < half; i++)
            {
                float angle = position * frequencies[i];
                cos[(position * half) + i] = MathF.Cos(angle);
                sin[(position * half) + i] = MathF.Sin(angle);
            }
        }

        Dispose();
        _cos = tensor(cos, [length, half]).to(device).DetachFromDisposeScope();
        _sin = tensor(sin, [length, half]).to(device).DetachFromDisposeScope();
        _length = length;
    }
}
