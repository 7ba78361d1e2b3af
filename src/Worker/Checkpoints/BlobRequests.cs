using Azure;
using Polly;
using Polly.Retry;
using Polly.Timeout;

namespace Trainer.Worker.Checkpoints;

/// <summary>
/// Runs single, repeatable requests: transient failures (408, 429, 5xx, network, timeout) are tried again with exponential
/// backoff and jitter until the budget is used up; the rest fails at once.
/// </summary>
internal sealed class BlobRequests
{
    private static readonly ResiliencePropertyKey<DateTimeOffset> s_deadline = new("deadline");
    private readonly string _address;
    // Shorter failures are the weather.
    private const int ToldAfterAttempts = 3;

    private readonly BlobStoreOptions _options;
    private readonly ResiliencePipeline _pipeline;
    private volatile bool _troubled;

    /// <param name="address">The store, for messages.</param>
    /// <param name="options">Timeout of an attempt, budget, time.</param>
    public BlobRequests(string address, BlobStoreOptions options)
    {
        _address = address;
        _options = options;
        _pipeline = new ResiliencePipelineBuilder { TimeProvider = options.Time }
            .AddRetry(new RetryStrategyOptions
            {
                MaxRetryAttempts = int.MaxValue,
                BackoffType = DelayBackoffType.Exponential,
                UseJitter = true,
                Delay = TimeSpan.FromMilliseconds(200),
                MaxDelay = TimeSpan.FromSeconds(10),
                ShouldHandle = arguments => ValueTask.FromResult(
                    IsTransient(arguments.Outcome.Exception, arguments.Context.CancellationToken)
                    && options.Time.GetUtcNow() < arguments.Context.Properties.GetValue(s_deadline, default)),
                OnRetry = arguments =>
                {
                    if (arguments.AttemptNumber + 1 >= ToldAfterAttempts && !_troubled)
                    {
                        _troubled = true;
                        options.Trouble?.Invoke($"{_address} does not answer ({Problem(arguments.Outcome.Exception!)}); trying again");
                    }
                    return ValueTask.CompletedTask;
                },
            })
            .AddTimeout(new TimeoutStrategyOptions { Timeout = options.AttemptTimeout })
            .Build();
    }

    /// <param name="what">The request in words, e.g. "write step-1/x".</param>
    /// <param name="request">Called again after a transient failure.</param>
    /// <param name="cancellationToken">Ends the waiting too.</param>
    /// <exception cref="FileNotFoundException">The service answered 404.</exception>
    /// <exception cref="StoreException">It answered anything else, or nothing within the budget; the answer is the inner exception.</exception>
    public async Task<T> RunAsync<T>(string what, Func<CancellationToken, Task<T>> request, CancellationToken cancellationToken)
    {
        ResilienceContext context = ResilienceContextPool.Shared.Get(continueOnCapturedContext: false, cancellationToken);
        context.Properties.Set(s_deadline, _options.Time.GetUtcNow() + _options.RetryBudget);
        try
        {
            T answer = await _pipeline.ExecuteAsync(
                static async (c, run) => await run(c.CancellationToken), context, request);
            if (_troubled)
            {
                _troubled = false;
                _options.Trouble?.Invoke(null);
            }
            return answer;
        }
        catch (RequestFailedException e) when (e.Status == 404)
        {
            throw new FileNotFoundException($"{_address}: {what}: not found ({e.ErrorCode})", e);
        }
        catch (Exception e) when (e is RequestFailedException or IOException or TimeoutRejectedException or OperationCanceledException
            && !cancellationToken.IsCancellationRequested)
        {
            throw new StoreException($"{_address}: {what}: {Explain(e)}", e);
        }
        finally
        {
            ResilienceContextPool.Shared.Return(context);
        }
    }

    // A cancellation that the caller did not ask for is the client's network timeout.
    private static bool IsTransient(Exception? failure, CancellationToken cancellationToken) => failure switch
    {
        RequestFailedException answer => answer.Status is 0 or 408 or 429 or >= 500,
        IOException or TimeoutRejectedException => true,
        OperationCanceledException => !cancellationToken.IsCancellationRequested,
        _ => false,
    };

    private static string Problem(Exception failure) => failure.Message.Split('\n')[0].Trim();

    private string Explain(Exception failure) => failure switch
    {
        RequestFailedException { Status: 401 or 403 } refused =>
            $"refused ({refused.Status} {refused.ErrorCode}); check AZURE_STORAGE_CONNECTION_STRING, or that the identity has the role Storage Blob Data Contributor",
        RequestFailedException { Status: > 0 } answer => $"failed ({answer.Status} {answer.ErrorCode})",
        _ => $"no answer for {_options.RetryBudget.TotalSeconds:0} s ({Problem(failure)}); check that the service can be reached",
    };
}
