using System.Globalization;
using System.Reflection;
using System.Runtime.CompilerServices;
using Orleans;
using Orleans.Runtime;
using Trainer.Contracts;
using Trainer.Coordinator;

namespace Coordinator.Tests;

/// <summary>
/// What crosses grain calls or is stored must be understood by coordinators of other versions: it is written down in
/// tests/golden/contracts.txt, so that no change of it goes unseen.
/// </summary>
public sealed class WireContractTests
{
    private const string AcceptVariable = "TRAINER_ACCEPT_CONTRACTS";

    private static readonly Assembly[] s_assemblies = [typeof(IJobGrain).Assembly, typeof(JobGrain).Assembly];
    private static readonly Type[] s_types = [.. s_assemblies.SelectMany(assembly => assembly.GetTypes()).Where(type => !type.IsDefined(typeof(CompilerGeneratedAttribute)))];
    private static readonly Type[] s_interfaces = [.. s_types.Where(type => type.IsInterface && type.IsAssignableTo(typeof(IGrain)))];
    private static readonly Type[] s_grains = [.. s_types.Where(type => type is { IsClass: true, IsAbstract: false } && type.IsSubclassOf(typeof(Grain)))];

    [Fact]
    public void The_wire_and_the_store_are_as_they_were_written_down()
    {
        string path = Golden();
        string[] actual = [.. Describe()];
        if (Environment.GetEnvironmentVariable(AcceptVariable) == "1")
        {
            File.WriteAllLines(path, actual);
        }
        string[] expected = File.ReadAllLines(path);
        Assert.True(expected.SequenceEqual(actual), $"""
            Grain calls or stored states have changed. Coordinators of the version before would misread:
            {string.Join('\n', Changes(expected, actual))}
            Members may be added with a new id; nothing may be renamed, renumbered or given another type (a new alias is a new type).
            If the change is meant: {AcceptVariable}=1 ./test.sh Coordinator.Tests, and commit tests/golden/contracts.txt.
            """);
    }

    [Fact]
    public void Everything_that_crosses_a_call_or_is_stored_says_how()
    {
        Assert.NotEmpty(s_interfaces);
        Assert.NotEmpty(s_grains);
        var wrong = new List<string>();
        wrong.AddRange(s_interfaces.Where(type => Alias(type) is null).Select(type => $"{type}: no [Alias]"));
        foreach (Type type in s_interfaces)
        {
            wrong.AddRange(type.GetMethods().Where(method => Alias(method) is null).Select(method => $"{type}.{method.Name}: no [Alias]"));
            wrong.AddRange(Repeated(type.GetMethods().Select(Alias)).Select(alias => $"{type}: two methods are \"{alias}\""));
        }
        foreach (Type type in Crossing())
        {
            wrong.AddRange(type.IsDefined(typeof(GenerateSerializerAttribute), false) ? [] : [$"{type}: no [GenerateSerializer]"]);
            wrong.AddRange(Alias(type) is null ? [$"{type}: no [Alias]"] : []);
            wrong.AddRange(Members(type).Where(member => member.Id is null).Select(member => $"{type}.{member.Name}: no [Id]"));
            wrong.AddRange(Repeated(Members(type).Select(member => member.Id?.ToString(CultureInfo.InvariantCulture))).Select(id => $"{type}: id {id} twice"));
        }
        wrong.AddRange(Repeated(s_interfaces.Concat(Crossing()).Select(Alias)).Select(alias => $"alias \"{alias}\" twice"));
        Assert.True(wrong.Count == 0, string.Join('\n', wrong));
    }

    [Fact]
    public void Nothing_says_so_that_never_crosses() =>
        Assert.Empty(s_types.Where(type => type.IsDefined(typeof(GenerateSerializerAttribute), false)).Except(Crossing()));

    private static string Golden()
    {
        DirectoryInfo? folder = new(AppContext.BaseDirectory);
        while (folder is not null && !File.Exists(Path.Combine(folder.FullName, "Trainer.sln")))
        {
            folder = folder.Parent;
        }
        Assert.True(folder is not null, $"Trainer.sln was not found above {AppContext.BaseDirectory}");
        return Path.Combine(folder.FullName, "tests", "golden", "contracts.txt");
    }

    /// <summary>Lines of one that the other lacks, under the type that they belong to.</summary>
    private static IEnumerable<string> Changes(string[] expected, string[] actual)
    {
        HashSet<string> before = [.. Whole(expected)], now = [.. Whole(actual)];
        return before.Except(now).Select(line => $"- {line}").Concat(now.Except(before).Select(line => $"+ {line}")).DefaultIfEmpty("the order of lines");

        static IEnumerable<string> Whole(string[] lines)
        {
            string type = "";
            foreach (string line in lines)
            {
                type = line.StartsWith(' ') ? type : line;
                yield return line.StartsWith(' ') ? $"{type}:{line}" : line;
            }
        }
    }

    private static IEnumerable<string> Describe()
    {
        yield return "Grain calls and stored states, as coordinators of every version know them (WireContractTests).";
        foreach (Type grain in s_grains.OrderBy(type => type.Name, StringComparer.Ordinal))
        {
            yield return "";
            yield return $"{grain.Name} answers {string.Join(", ", grain.GetInterfaces().Where(s_interfaces.Contains).Select(Alias).Order(StringComparer.Ordinal))}";
            foreach ((string name, Type state) in States(grain))
            {
                yield return $"  stores {name}: {Spell(state)}";
            }
        }
        foreach (Type type in s_interfaces.OrderBy(Alias, StringComparer.Ordinal))
        {
            yield return "";
            yield return $"{Alias(type)} {type.Name}";
            foreach (MethodInfo method in type.GetMethods().OrderBy(Alias, StringComparer.Ordinal))
            {
                string arguments = string.Join(", ", method.GetParameters().Select(parameter => Spell(parameter.ParameterType)));
                yield return $"  {Alias(method)}({arguments}): {Spell(method.ReturnType)}{(IsOneWay(method) ? ", one way" : "")}";
            }
        }
        foreach (Type type in Crossing().OrderBy(Alias, StringComparer.Ordinal))
        {
            yield return "";
            yield return $"{Alias(type)} {type.Name}";
            IEnumerable<string> members = type.IsEnum
                ? Enum.GetNames(type).Select(name => string.Create(CultureInfo.InvariantCulture, $"  {(int)Enum.Parse(type, name)} {name}"))
                : Members(type).OrderBy(member => member.Id).Select(member => string.Create(CultureInfo.InvariantCulture, $"  {member.Id} {member.Name}: {Spell(member.Type)}"));
            foreach (string member in members)
            {
                yield return member;
            }
        }
    }

    /// <summary>Types of ours in calls and states, and in their members.</summary>
    internal static HashSet<Type> Crossing()
    {
        var found = new HashSet<Type>();
        foreach (Type type in s_interfaces.SelectMany(type => type.GetMethods()).SelectMany(method => method.GetParameters().Select(parameter => parameter.ParameterType).Append(method.ReturnType))
            .Concat(s_grains.SelectMany(States).Select(state => state.Type)))
        {
            Add(type);
        }
        return found;

        void Add(Type type)
        {
            if (type.IsGenericType)
            {
                Array.ForEach(type.GetGenericArguments(), Add);
            }
            else if (type.Namespace?.StartsWith("System", StringComparison.Ordinal) != true && found.Add(type))
            {
                Array.ForEach(Members(type), member => Add(member.Type));
            }
        }
    }

    /// <summary>What is kept of a value; what is computed from it is not.</summary>
    internal static (uint? Id, string Name, Type Type)[] Members(Type type) => type.IsEnum ? [] :
    [
        .. type.GetProperties(BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic)
            .Where(property => property.SetMethod is not null).Select(property => (Id(property), property.Name, property.PropertyType)),
        .. type.GetFields(BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic)
            .Where(field => !field.IsDefined(typeof(CompilerGeneratedAttribute))).Select(field => (Id(field), field.Name, field.FieldType)),
    ];

    private static IEnumerable<(string Name, Type Type)> States(Type grain) =>
        from parameter in grain.GetConstructors().Single().GetParameters()
        let state = parameter.GetCustomAttribute<PersistentStateAttribute>()
        where state is not null
        select (state.StateName, parameter.ParameterType.GetGenericArguments()[0]);

    private static string Spell(Type type) =>
        Nullable.GetUnderlyingType(type) is { } bare ? $"{Spell(bare)}?"
        : type.IsGenericType ? $"{type.Name[..type.Name.IndexOf('`', StringComparison.Ordinal)]}<{string.Join(", ", type.GetGenericArguments().Select(Spell))}>"
        : Alias(type) ?? type.Name;

    private static string? Alias(MemberInfo member) => member.GetCustomAttribute<AliasAttribute>(false)?.Alias;

    private static uint? Id(MemberInfo member) => member.GetCustomAttribute<IdAttribute>()?.Id;

    private static bool IsOneWay(MethodInfo method) => method.IsDefined(typeof(Orleans.Concurrency.OneWayAttribute));

    private static IEnumerable<string> Repeated(IEnumerable<string?> names) =>
        names.OfType<string>().GroupBy(name => name).Where(group => group.Count() > 1).Select(group => group.Key);
}
