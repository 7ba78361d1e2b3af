using TorchSharp.Native;
using static TorchSharp.Native.NativeMethods;

namespace TorchSharp;

public static partial class torch
{
    /// <summary>Seeds the default generators of every device.</summary>
    public static Generator manual_seed(long seed)
    {
        TorchError.ThrowIfFailed(tt_manual_seed(seed));
        return Generator.Default;
    }

    /// <summary>State of the CPU's default generator, a uint8 tensor.</summary>
    public static Tensor get_rng_state()
    {
        using Generator generator = Generator.Default;
        return generator.get_state();
    }

    public static void set_rng_state(Tensor state)
    {
        using Generator generator = Generator.Default;
        generator.set_state(state);
    }

    /// <summary>A source of random numbers; the same seed gives the same numbers.</summary>
    public sealed class Generator : IDisposable
    {
        private nint _handle;

        public Generator(ulong seed = 0, Device? device = null)
        {
            this.device = device ?? CPU;
            TorchError.ThrowIfFailed(tt_generator_new(this.device.Packed, (long)seed, out _handle));
        }

        private Generator(nint handle, Device device)
        {
            _handle = handle;
            this.device = device;
        }

        /// <summary>The generator that operators on the CPU use when they are given none.</summary>
        public static Generator Default => ForDevice(CPU);

        public Device device { get; }

        internal nint Handle
        {
            get
            {
                ObjectDisposedException.ThrowIf(_handle == 0, this);
                return _handle;
            }
        }

        /// <summary>The default generator of a device.</summary>
        public static Generator ForDevice(Device device)
        {
            TorchError.ThrowIfFailed(tt_generator_default(device.Packed, out nint handle));
            return new Generator(handle, device);
        }

        public Generator manual_seed(long seed)
        {
            TorchError.ThrowIfFailed(tt_generator_set_seed(Handle, seed));
            return this;
        }

        public long initial_seed()
        {
            TorchError.ThrowIfFailed(tt_generator_get_seed(Handle, out long seed));
            return seed;
        }

        /// <summary>uint8 on the CPU.</summary>
        public Tensor get_state()
        {
            TorchError.ThrowIfFailed(tt_generator_get_state(Handle, out nint state));
            return new Tensor(state);
        }

        public void set_state(Tensor value) => TorchError.ThrowIfFailed(tt_generator_set_state(Handle, value.Handle));

        public void Dispose()
        {
            nint handle = Interlocked.Exchange(ref _handle, 0);
            if (handle != 0)
            {
                tt_generator_free(handle);
            }
        }
    }
}
