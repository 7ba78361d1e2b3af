using System.ComponentModel.DataAnnotations;
using System.Reflection;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Schema;
using System.Xml.Linq;

namespace Trainer.Contracts;

/// <summary>JSON Schemas (2020-12) of what files and requests may hold, told from the records: their rules, defaults and comments.</summary>
public static class JsonSchemas
{
    private static readonly Lazy<Dictionary<string, string>> s_comments = new(Comments);

    /// <summary>Of a job file: completion and checks in editors.</summary>
    public static JsonNode OfJob()
    {
        JsonObject job = Of(typeof(JobConfig), JobConfigJson.Options).AsObject();
        job["$schema"] = "https://json-schema.org/draft/2020-12/schema";
        job["title"] = "A fine-tuning job";
        job["properties"]!.AsObject().Insert(0, "$schema", new JsonObject { ["type"] = "string", ["description"] = "Where this schema is; for editors." });
        return job;
    }

    /// <summary>Of a record that travels as <see cref="ContractsJson"/> writes it.</summary>
    public static JsonNode Of(Type type) => type == typeof(JobConfig) ? OfJob() : Of(type, ContractsJson.Default.Options);

    private static JsonNode Of(Type type, JsonSerializerOptions json) =>
        json.GetJsonSchemaAsNode(type, new JsonSchemaExporterOptions { TreatNullObliviousAsNonNullable = true, TransformSchemaNode = (context, schema) => Tell(context, schema, json) });

    private static JsonNode Tell(JsonSchemaExporterContext context, JsonNode schema, JsonSerializerOptions json)
    {
        // Types with a converter of their own are opaque to the exporter.
        if (context.TypeInfo.Type == typeof(JobId))
        {
            schema = new JsonObject { ["type"] = "string", ["pattern"] = "^[a-z0-9][a-z0-9._-]{0,79}$" };
        }
        else if (context.TypeInfo.Type == typeof(JobConfig) && json != JobConfigJson.Options)
        {
            return new JsonObject { ["$ref"] = "#/components/schemas/JobConfig" };
        }
        if (schema is not JsonObject known || context.PropertyInfo?.AttributeProvider is not PropertyInfo property)
        {
            return schema;
        }
        if (property.GetCustomAttribute<RangeAttribute>() is { } range)
        {
            known[range.MinimumIsExclusive ? "exclusiveMinimum" : "minimum"] = Number(range.Minimum);
            if (range.Maximum is not double.MaxValue)
            {
                known[range.MaximumIsExclusive ? "exclusiveMaximum" : "maximum"] = Number(range.Maximum);
            }
        }
        if (Default(property) is { } value)
        {
            known["default"] = JsonSerializer.SerializeToNode(value, property.PropertyType, json);
        }
        if (s_comments.Value.GetValueOrDefault($"P:{property.DeclaringType!.FullName}.{property.Name}") is { } comment)
        {
            known.Insert(0, "description", comment);
        }
        return known;

        static JsonNode Number(object value) => value is int integer ? integer : (double)value;
    }

    /// <summary>What the key is when it is left out; null when there is nothing to say.</summary>
    private static object? Default(PropertyInfo property) =>
        property.PropertyType.IsValueType || property.PropertyType == typeof(string)
            ? property.DeclaringType!.GetConstructor(Type.EmptyTypes) is { } create && property.GetCustomAttribute<System.Runtime.CompilerServices.RequiredMemberAttribute>() is null
                ? property.GetValue(create.Invoke([]))
                : null
            : null;

    /// <summary>The comments of the code, which the build writes beside the assembly; none when they were left out.</summary>
    private static Dictionary<string, string> Comments()
    {
        string path = Path.Combine(AppContext.BaseDirectory, $"{typeof(JsonSchemas).Assembly.GetName().Name}.xml");
        return File.Exists(path)
            ? XDocument.Load(path).Descendants("member")
                .Where(member => member.Element("summary") is not null)
                .ToDictionary(member => member.Attribute("name")!.Value, member => Text(member.Element("summary")!), StringComparer.Ordinal)
            : [];
    }

    private static string Text(XElement summary)
    {
        IEnumerable<string> parts = summary.Nodes().Select(node => node switch
        {
            XElement { Name.LocalName: "see" } see => Spelling.Key(see.Attribute("cref")!.Value.Split('.', ':')[^1]),
            XElement element => element.Value,
            _ => node.ToString(),
        });
        return string.Join(' ', string.Concat(parts).Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries));
    }
}
