namespace Orleans.Embedded;

/// <summary>Runs the turns of one activation one after another on the thread pool.</summary>
internal sealed class TurnScheduler : TaskScheduler
{
    [ThreadStatic]
    private static TurnScheduler? s_running;

    private readonly Queue<Task> _turns = [];
    private bool _pumping;

    public override int MaximumConcurrencyLevel => 1;

    /// <summary>Starts asynchronous work whose awaits come back to this scheduler.</summary>
    public Task Run(Func<Task> work) =>
        Task.Factory.StartNew(work, CancellationToken.None, TaskCreationOptions.DenyChildAttach, this).Unwrap();

    protected override void QueueTask(Task task)
    {
        lock (_turns)
        {
            _turns.Enqueue(task);
            if (_pumping)
            {
                return;
            }
            _pumping = true;
        }
        ThreadPool.UnsafeQueueUserWorkItem(static scheduler => scheduler.Pump(), this, preferLocal: false);
    }

    protected override bool TryExecuteTaskInline(Task task, bool taskWasPreviouslyQueued) =>
        !taskWasPreviouslyQueued && s_running == this && TryExecuteTask(task);

    protected override IEnumerable<Task> GetScheduledTasks()
    {
        lock (_turns)
        {
            return [.. _turns];
        }
    }

    private void Pump()
    {
        s_running = this;
        while (Next() is { } turn)
        {
            TryExecuteTask(turn);
        }
        s_running = null;
    }

    private Task? Next()
    {
        lock (_turns)
        {
            _pumping = _turns.TryDequeue(out Task? turn);
            return turn;
        }
    }
}
