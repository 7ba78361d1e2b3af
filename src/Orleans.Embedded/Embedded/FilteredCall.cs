using Orleans.Runtime;

namespace Orleans.Embedded;

/// <summary>One call on its way through the filters.</summary>
internal sealed class FilteredCall(Request request, Grain grain, IIncomingGrainCallFilter[] filters) : IIncomingGrainCallContext
{
    private int _next;
    private object? _result;

    public object Grain => grain;
    public string MethodName => request.Name;
    public GrainId TargetId => request.Target;

    public async Task<object?> RunAsync()
    {
        await Invoke();
        return _result;
    }

    public async Task Invoke()
    {
        if (_next < filters.Length)
        {
            await filters[_next++].Invoke(this);
        }
        else
        {
            _result = await request.Work(grain);
        }
    }
}
