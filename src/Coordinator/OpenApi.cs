using System.Text.Json.Nodes;
using System.Text.Json.Serialization.Metadata;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>The OpenAPI 3.1 document of every endpoint that is mapped, told from its <see cref="Operation"/> and its route.</summary>
internal sealed class OpenApi(EndpointDataSource endpoints)
{
    private readonly Lazy<string> _document = new(() => Write(endpoints).ToJsonString());

    public Task AnswerAsync(HttpContext context)
    {
        context.Response.ContentType = "application/json";
        return context.Response.WriteAsync(_document.Value, context.RequestAborted);
    }

    private static JsonObject Write(EndpointDataSource endpoints)
    {
        var schemas = new JsonObject();
        Add(schemas, typeof(JobConfig));
        Add(schemas, typeof(ApiError));
        var paths = new JsonObject();
        foreach (RouteEndpoint endpoint in endpoints.Endpoints.OfType<RouteEndpoint>().OrderBy(endpoint => endpoint.RoutePattern.RawText, StringComparer.Ordinal))
        {
            if (endpoint.Metadata.GetMetadata<Operation>() is not { } operation || endpoint.Metadata.GetMetadata<IHttpMethodMetadata>() is not { } methods)
            {
                continue;
            }
            string path = endpoint.RoutePattern.RawText!;
            if (paths[path] is not JsonObject item)
            {
                paths[path] = item = [];
            }
            foreach (string method in methods.HttpMethods)
            {
                item[method.ToLowerInvariant()] = Describe(endpoint, operation, schemas);
            }
        }
        return new JsonObject
        {
            ["openapi"] = "3.1.0",
            ["info"] = new JsonObject { ["title"] = "Trainer coordinator", ["version"] = typeof(OpenApi).Assembly.GetName().Version!.ToString(3) },
            ["paths"] = paths,
            ["components"] = new JsonObject
            {
                ["schemas"] = schemas,
                ["securitySchemes"] = new JsonObject { ["token"] = new JsonObject { ["type"] = "http", ["scheme"] = "bearer", ["description"] = "As \"trainer token\" makes it." } },
            },
        };
    }

    private static JsonObject Describe(RouteEndpoint endpoint, Operation operation, JsonObject schemas)
    {
        var told = new JsonObject { ["summary"] = operation.Summary };
        if (!operation.IsOpen)
        {
            told["description"] = $"For tokens of role {string.Join(", ", operation.Roles.Append(Role.Admin).Select(role => Spelling.Of(role)))}.";
            told["security"] = new JsonArray(new JsonObject { ["token"] = new JsonArray() });
        }
        JsonObject[] parameters = [
            .. endpoint.RoutePattern.Parameters.Select(parameter => Parameter(parameter.Name, "path", null)),
            .. operation.Query.Select(query => Parameter(query.Key, "query", query.Value))];
        if (parameters.Length > 0)
        {
            told["parameters"] = new JsonArray(parameters);
        }
        if (operation.Request is { } request)
        {
            told["requestBody"] = new JsonObject { ["required"] = true, ["content"] = Json(request, schemas) };
        }
        else if (operation.TakesBytes)
        {
            told["requestBody"] = new JsonObject { ["required"] = true, ["content"] = new JsonObject { ["application/octet-stream"] = new JsonObject() } };
        }
        var answer = new JsonObject { ["description"] = operation.Status == 204 ? "done" : "the answer" };
        if (operation.Answer is { } json)
        {
            answer["content"] = Json(json, schemas);
        }
        else if (operation.Schema is { } schema)
        {
            answer["content"] = Json(schema, schemas);
        }
        else if (operation.ContentType is { } type)
        {
            answer["content"] = new JsonObject { [type] = new JsonObject() };
        }
        told["responses"] = new JsonObject
        {
            [operation.Status.ToString(System.Globalization.CultureInfo.InvariantCulture)] = answer,
            ["default"] = new JsonObject
            {
                ["description"] = "refused: one sentence with the cure",
                ["content"] = new JsonObject { ["application/json"] = new JsonObject { ["schema"] = Reference(nameof(ApiError)) } },
            },
        };
        return told;
    }

    private static JsonObject Parameter(string name, string place, string? description)
    {
        var parameter = new JsonObject { ["name"] = name, ["in"] = place, ["required"] = place == "path", ["schema"] = new JsonObject { ["type"] = "string" } };
        if (description is not null)
        {
            parameter["description"] = description;
        }
        return parameter;
    }

    private static JsonObject Json(JsonTypeInfo type, JsonObject schemas) => Json(type.Type, schemas);

    private static JsonObject Json(Type type, JsonObject schemas)
    {
        Add(schemas, type);
        return new JsonObject { ["application/json"] = new JsonObject { ["schema"] = Reference(type.Name) } };
    }

    private static void Add(JsonObject schemas, Type type)
    {
        if (!schemas.ContainsKey(type.Name))
        {
            JsonNode schema = JsonSchemas.Of(type);
            Root(schema, $"#/components/schemas/{type.Name}");
            schemas[type.Name] = schema;
        }
    }

    /// <summary>References within a schema start at its own root, which lies deeper here.</summary>
    private static void Root(JsonNode? node, string place)
    {
        if (node is JsonObject map)
        {
            if ((string?)(map["$ref"] as JsonValue) is { } reference && !reference.StartsWith("#/components/", StringComparison.Ordinal))
            {
                map["$ref"] = place + reference[1..];
            }
            foreach ((_, JsonNode? child) in map)
            {
                Root(child, place);
            }
        }
        else if (node is JsonArray list)
        {
            foreach (JsonNode? child in list)
            {
                Root(child, place);
            }
        }
    }

    private static JsonObject Reference(string schema) => new() { ["$ref"] = $"#/components/schemas/{schema}" };
}
