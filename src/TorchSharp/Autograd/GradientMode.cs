using static TorchSharp.Native.NativeMethods;

namespace TorchSharp;

/// <summary>Sets the calling thread's gradient mode until disposed on the same thread.</summary>
public sealed class AutoGradMode : IDisposable
{
    private readonly bool _before = IsEnabled;
    private bool _disposed;

    public AutoGradMode(bool enabled) => tt_set_grad_mode(enabled ? 1 : 0);

    public static bool IsEnabled => tt_grad_mode() != 0;

    public void Dispose()
    {
        if (!_disposed)
        {
            _disposed = true;
            tt_set_grad_mode(_before ? 1 : 0);
        }
    }
}

/// <summary>No graph, no version counters: the cheapest mode for generating. Disposed on the thread that made it.</summary>
public sealed class InferenceMode : IDisposable
{
    private nint _guard;

    public InferenceMode(bool mode) => _guard = tt_inference_guard_new(mode ? 1 : 0);

    public static bool IsEnabled => tt_inference_mode() != 0;

    public void Dispose()
    {
        nint guard = Interlocked.Exchange(ref _guard, 0);
        if (guard != 0)
        {
            tt_inference_guard_free(guard);
        }
    }
}

public static partial class torch
{
    public static IDisposable no_grad() => new AutoGradMode(false);
    public static IDisposable enable_grad(bool enabled = true) => new AutoGradMode(enabled);
    public static IDisposable set_grad_enabled(bool mode = true) => new AutoGradMode(mode);
    public static IDisposable inference_mode(bool mode = true) => new InferenceMode(mode);
    public static bool is_grad_enabled() => AutoGradMode.IsEnabled;
    public static bool is_inference_mode_enabled() => InferenceMode.IsEnabled;
}
