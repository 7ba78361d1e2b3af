using System.Collections.Concurrent;
using System.Reflection;
using Orleans.Concurrency;
using Orleans.Runtime;

namespace Orleans.Embedded;

/// <summary>A reference to a grain: turns interface calls into requests. Arguments cross by reference, so they must be immutable.</summary>
public class GrainProxy : DispatchProxy
{
    private static readonly ConcurrentDictionary<MethodInfo, GrainMethod> s_methods = new();

    private Silo? _silo;

    internal GrainId Id { get; private set; }

    internal static T Create<T>(Silo silo, GrainId id)
    {
        var proxy = (GrainProxy)Prototype<T>.Made.MemberwiseClone();
        proxy._silo = silo;
        proxy.Id = id;
        return (T)(object)proxy;
    }

    protected override object? Invoke(MethodInfo? targetMethod, object?[]? args)
    {
        GrainMethod method = s_methods.GetOrAdd(targetMethod!, static found => new GrainMethod(found));
        var request = new Request(Id, targetMethod!.Name, grain => method.CallAsync(grain, args))
        {
            Interleaves = method.Interleaves,
            IsReadOnly = method.IsReadOnly,
        };
        if (method.IsOneWay)
        {
            _silo!.Deliver(request);
            return method.Return(Task.FromResult<object?>(null));
        }
        return method.Return(_silo!.CallAsync(request));
    }

    /// <summary>DispatchProxy looks for its class and constructor by reflection every time; a copy of one that it made needs neither.</summary>
    private static class Prototype<T>
    {
        public static readonly GrainProxy Made = (GrainProxy)(object)Create<T, GrainProxy>()!;
    }
}

/// <summary>The four shapes of a grain method (Task, ValueTask, with and without a value) seen as one.</summary>
internal sealed class GrainMethod
{
    private readonly MethodInvoker _method;
    private readonly Func<object, Task<object?>> _take;
    private readonly Func<Task<object?>, object> _give;

    public GrainMethod(MethodInfo method)
    {
        _method = MethodInvoker.Create(method);
        Interleaves = method.IsDefined(typeof(AlwaysInterleaveAttribute));
        IsReadOnly = method.IsDefined(typeof(ReadOnlyAttribute));
        IsOneWay = method.IsDefined(typeof(OneWayAttribute));
        Type type = method.ReturnType;
        Type? value = type.IsGenericType ? type.GetGenericArguments()[0] : null;
        bool isValueTask = type == typeof(ValueTask) || (value is not null && type.GetGenericTypeDefinition() == typeof(ValueTask<>));
        if (!isValueTask && !typeof(Task).IsAssignableFrom(type))
        {
            throw new NotSupportedException($"{method.DeclaringType}.{method.Name} must return Task or ValueTask");
        }
        foreach (Type crossing in method.GetParameters().Select(parameter => parameter.ParameterType).Append(value ?? typeof(int)))
        {
            RequireImmutable(method, crossing);
        }
        string kind = $"{(isValueTask ? "ValueTask" : "Task")}{(value is null ? "" : "Of")}";
        _take = Bind<Func<object, Task<object?>>>($"Take{kind}", value);
        _give = Bind<Func<Task<object?>, object>>($"Give{kind}", value);
    }

    public bool Interleaves { get; }

    public bool IsReadOnly { get; }

    public bool IsOneWay { get; }

    public Task<object?> CallAsync(object grain, object?[]? arguments) =>
        _take(_method.Invoke(grain, arguments)!);

    public object Return(Task<object?> reply) => _give(reply);

    private static T Bind<T>(string name, Type? value) where T : Delegate
    {
        MethodInfo method = typeof(GrainMethod).GetMethod(name, BindingFlags.NonPublic | BindingFlags.Static)!;
        return (value is null ? method : method.MakeGenericMethod(value)).CreateDelegate<T>();
    }

    private static void RequireImmutable(MethodInfo method, Type type)
    {
        Type bare = Nullable.GetUnderlyingType(type) ?? type;
        bool isCore = bare.IsPrimitive || bare.IsEnum || bare.Namespace is "System" or "System.Threading" || bare == typeof(string);
        bool isCollection = bare.IsGenericType && bare.Namespace is "System.Collections.Immutable";
        if (isCollection)
        {
            foreach (Type item in bare.GetGenericArguments())
            {
                RequireImmutable(method, item);
            }
        }
        else if (!isCore && !bare.IsDefined(typeof(GenerateSerializerAttribute), inherit: false))
        {
            throw new NotSupportedException($"{method.DeclaringType}.{method.Name}: {type} cannot cross a grain call; "
                + "make it an immutable record with [GenerateSerializer], or an immutable collection of such");
        }
    }

    private static async Task<object?> TakeTask(object task)
    {
        await (Task)task;
        return null;
    }

    private static async Task<object?> TakeTaskOf<T>(object task) => await (Task<T>)task;

    private static async Task<object?> TakeValueTask(object task)
    {
        await (ValueTask)task;
        return null;
    }

    private static async Task<object?> TakeValueTaskOf<T>(object task) => await (ValueTask<T>)task;

    private static object GiveTask(Task<object?> reply) => reply;

    private static object GiveTaskOf<T>(Task<object?> reply) => CastAsync<T>(reply);

    private static object GiveValueTask(Task<object?> reply) => new ValueTask(reply);

    private static object GiveValueTaskOf<T>(Task<object?> reply) => new ValueTask<T>(CastAsync<T>(reply));

    private static async Task<T> CastAsync<T>(Task<object?> reply) => (T)(await reply.ConfigureAwait(false))!;
}
