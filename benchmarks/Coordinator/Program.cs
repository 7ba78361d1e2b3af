using System.Globalization;
using Trainer.Benchmarks;

// Usage: [scale] [--jobs N] [--nodes N] [--slots N] [--rank-seconds S] | first-step [--submissions N]
var options = new Dictionary<string, double> { ["jobs"] = 15000, ["nodes"] = 1000, ["slots"] = 8, ["rank-seconds"] = 5, ["submissions"] = 20 };
string mode = args is [var first, ..] && !first.StartsWith('-') ? first : "scale";
for (int i = args.Length > 0 && args[0] == mode ? 1 : 0; i < args.Length; i += 2)
{
    string name = args[i].TrimStart('-');
    if (i + 1 >= args.Length || !options.ContainsKey(name) || !double.TryParse(args[i + 1], CultureInfo.InvariantCulture, out double value))
    {
        Console.Error.WriteLine($"{args[i]}: one of {string.Join(", ", options.Keys.Select(key => "--" + key))} with a number is expected");
        return 2;
    }
    options[name] = value;
}
switch (mode)
{
    case "scale":
        return await ScaleBenchmark.RunAsync((int)options["jobs"], (int)options["nodes"], (int)options["slots"], TimeSpan.FromSeconds(options["rank-seconds"]));
    case "first-step":
        return await FirstStepBenchmark.RunAsync((int)options["submissions"]);
    default:
        Console.Error.WriteLine($"{mode}: scale or first-step is expected");
        return 2;
}
