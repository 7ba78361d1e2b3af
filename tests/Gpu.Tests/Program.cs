using System.Diagnostics;
using System.Globalization;
using System.Reflection;

namespace Gpu.Tests;

/// <summary>Runs every test of this assembly, one after another, without a test host. The last line is 'N passed, N failed'.</summary>
internal static class Program
{
    /// <param name="arguments">Only tests whose name contains one of these; none: all.</param>
    public static int Main(string[] arguments)
    {
        if (arguments is [NcclTests.Verb, { } role, { } rank, { } port])
        {
            return NcclTests.Rank(role, int.Parse(rank, CultureInfo.InvariantCulture), int.Parse(port, CultureInfo.InvariantCulture));
        }

        int passed = 0, failed = 0;
        foreach ((string name, MethodInfo method, object?[] values) in Tests().Where(test => arguments.Length == 0 || arguments.Any(part => test.Name.Contains(part, StringComparison.OrdinalIgnoreCase))))
        {
            long begun = Stopwatch.GetTimestamp();
            Exception? failure = Run(method, values);
            Console.WriteLine($"{(failure is null ? "passed" : "FAILED")} {name} ({Stopwatch.GetElapsedTime(begun).TotalSeconds:F1} s)");
            if (failure is not null)
            {
                Console.WriteLine(failure);
            }

            _ = failure is null ? passed++ : failed++;
        }

        Console.WriteLine($"{passed} passed, {failed} failed");
        return failed == 0 && passed > 0 ? 0 : 1;
    }

    private static IEnumerable<(string Name, MethodInfo Method, object?[] Values)> Tests()
    {
        foreach (MethodInfo method in Assembly.GetExecutingAssembly().GetTypes().Where(type => type is { IsPublic: true, IsAbstract: false })
            .SelectMany(type => type.GetMethods(BindingFlags.Public | BindingFlags.Instance | BindingFlags.DeclaredOnly)))
        {
            if (method.GetCustomAttribute<TheoryAttribute>() is not null)
            {
                foreach (object?[] values in method.GetCustomAttributes<InlineDataAttribute>().SelectMany(data => data.GetData(method)))
                {
                    yield return ($"{method.DeclaringType!.Name}.{method.Name}({string.Join(", ", values)})", method, values);
                }
            }
            else if (method.GetCustomAttribute<FactAttribute>() is not null)
            {
                yield return ($"{method.DeclaringType!.Name}.{method.Name}", method, []);
            }
        }
    }

    private static Exception? Run(MethodInfo method, object?[] values)
    {
        try
        {
            object test = Activator.CreateInstance(method.DeclaringType!)!;
            try
            {
                method.Invoke(test, values);
            }
            finally
            {
                (test as IDisposable)?.Dispose();
            }

            return null;
        }
        catch (TargetInvocationException e)
        {
            return e.InnerException;
        }
    }
}
