namespace Trainer.Worker.Agent;

/// <summary>Wakes a loop early. Beats while it is busy count as one.</summary>
internal sealed class Pulse : IDisposable
{
    private readonly SemaphoreSlim _beat = new(0, 1);

    public void Beat()
    {
        try
        {
            _beat.Release();
        }
        catch (Exception error) when (error is SemaphoreFullException or ObjectDisposedException)
        {
            // It wakes already, or will never wake again.
        }
    }

    /// <summary>Until the next beat, at most so long.</summary>
    /// <exception cref="OperationCanceledException">Cancelled.</exception>
    public Task WaitAsync(TimeSpan atMost, CancellationToken cancellationToken) => _beat.WaitAsync(atMost, cancellationToken);

    public void Dispose() => _beat.Dispose();
}
