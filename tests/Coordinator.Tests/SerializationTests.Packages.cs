using System.Collections;
using System.Collections.Immutable;
using System.Reflection;
using System.Runtime.CompilerServices;
using System.Text.Json;
using Microsoft.Extensions.DependencyInjection;
using Orleans.Serialization;
using Trainer.Contracts;

namespace Coordinator.Tests;

/// <summary>What crosses between two coordinators arrives as it was: within one, Orleans hands immutable values over as they are.</summary>
public sealed class SerializationTests
{
    private static readonly Serializer s_serializer = new ServiceCollection().AddSerializer().BuildServiceProvider().GetRequiredService<Serializer>();

    public static TheoryData<Type> Types => [.. WireContractTests.Crossing()];

    [Theory]
    [MemberData(nameof(Types))]
    public void Every_member_arrives(Type type)
    {
        object sent = Filled(type);

        object? arrived = s_serializer.Deserialize<object>(s_serializer.SerializeToArray<object>(sent));

        Assert.Equal(type, arrived?.GetType());
        Assert.Equal(JsonSerializer.Serialize(sent, type), JsonSerializer.Serialize(arrived, type));
    }

    /// <summary>A value of the type whose members all differ from their defaults.</summary>
    private static object Filled(Type type)
    {
        if (Nullable.GetUnderlyingType(type) is { } bare)
        {
            return Filled(bare);
        }
        if (type.IsEnum)
        {
            return Enum.GetValues(type).GetValue(Enum.GetValues(type).Length - 1)!;
        }
        if (type.IsAssignableTo(typeof(IDictionary)))
        {
            var map = (IDictionary)Activator.CreateInstance(type)!;
            map.Add(Filled(type.GetGenericArguments()[0]), Filled(type.GetGenericArguments()[1]));
            return map;
        }
        if (type.IsGenericType)
        {
            MethodInfo list = typeof(SerializationTests).GetMethod(nameof(Two), BindingFlags.NonPublic | BindingFlags.Static)!.MakeGenericMethod(type.GetGenericArguments());
            object two = list.Invoke(null, null)!;
            return type.GetGenericTypeDefinition() == typeof(ImmutableArray<>) ? two : Activator.CreateInstance(type, two)!;
        }
        object? core = type == typeof(string) ? "a text" : type == typeof(bool) ? true : type == typeof(int) ? 7 : type == typeof(long) ? 1L << 40
            : type == typeof(double) ? 0.1 : type == typeof(DateTimeOffset) ? new DateTimeOffset(2026, 1, 2, 3, 4, 5, TimeSpan.FromHours(2))
            : type == typeof(JobId) ? new JobId("demo-abcd") : null;
        if (core is not null)
        {
            return core;
        }
        object value = RuntimeHelpers.GetUninitializedObject(type);
        foreach ((_, string name, Type member) in WireContractTests.Members(type))
        {
            type.GetProperty(name)!.SetValue(value, Filled(member));
        }
        return value;
    }

    private static ImmutableArray<T> Two<T>() => [(T)Filled(typeof(T)), (T)Filled(typeof(T))];
}
