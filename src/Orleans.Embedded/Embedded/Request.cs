using Orleans.Runtime;

namespace Orleans.Embedded;

/// <summary>One call or timer tick on its way through an activation. Its lists belong to the silo's lock.</summary>
internal sealed class Request(GrainId target, string name, Func<object, Task<object?>> work)
{
    private static readonly AsyncLocal<Request?> s_current = new();

    /// <summary>The request whose code runs here; null outside grains.</summary>
    public static Request? Current
    {
        get => s_current.Value;
        set => s_current.Value = value;
    }

    public GrainId Target { get; } = target;
    public string Name { get; } = name;
    public Func<object, Task<object?>> Work { get; } = work;

    /// <summary>Runs between the turns of any other request.</summary>
    public bool Interleaves { get; init; }

    /// <summary>Runs between the turns of other read-only requests.</summary>
    public bool IsReadOnly { get; init; }

    public bool IsTick { get; init; }

    /// <summary>Set when the caller stopped waiting: a queued request is then dropped.</summary>
    public bool Expired { get; set; }

    /// <summary>The activation in whose queue or turn it is.</summary>
    public Activation? Activation { get; set; }

    public bool Started { get; set; }

    /// <summary>Calls that this request made and has no reply to.</summary>
    public List<Request> Calls { get; } = [];

    public TaskCompletionSource<object?> Reply { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>
    /// The chain of requests by which this one would wait for <paramref name="caller"/>, ending there; null when there is none.
    /// A queued request waits for those running on its activation; a running one waits for its calls.
    /// </summary>
    public List<Request>? PathTo(Request caller) => PathTo(caller, []);

    public override string ToString() => $"{Target}.{Name}";

    private List<Request>? PathTo(Request caller, HashSet<Request> seen)
    {
        if (this == caller)
        {
            return [this];
        }
        if (!seen.Add(this))
        {
            return null;
        }
        foreach (Request next in Started ? Calls : Activation?.Running ?? [])
        {
            if (next.PathTo(caller, seen) is { } path)
            {
                path.Insert(0, this);
                return path;
            }
        }
        return null;
    }
}
