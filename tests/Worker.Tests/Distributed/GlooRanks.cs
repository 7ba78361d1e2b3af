using TorchSharp.Extras;
using Trainer.Worker.Distributed;

namespace Trainer.Worker.Tests.Distributed;

/// <summary>Several ranks in one process, each on a thread of its own.</summary>
internal static class GlooRanks
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    /// <returns>What each rank returned.</returns>
    public static async Task<T[]> RunAsync<T>(int worldSize, Func<ICommunicator, T> rank)
    {
        TcpStore store = TcpStore.Serve("127.0.0.1", s_patience);
        Task<T>[] ranks = [.. Enumerable.Range(0, worldSize).Select(number => Task.Factory.StartNew(() =>
        {
            TcpStore own = number == 0 ? store : TcpStore.Connect("127.0.0.1", store.Port, s_patience);
            own.Meet("CPU", number, worldSize, s_patience);
            using var communicator = new GlooCommunicator(own, "127.0.0.1", number, worldSize);
            return rank(communicator);
        }, CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default))];
        return await Task.WhenAll(ranks);
    }
}
