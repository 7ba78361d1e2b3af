using System.Net;
using System.Text.Json.Nodes;
using Trainer.Contracts;

namespace Coordinator.Tests;

/// <summary>The document that clients are generated from.</summary>
public sealed class OpenApiTests
{
    [Fact]
    public async Task It_tells_every_endpoint_and_every_reference_leads_somewhere()
    {
        await using OpenCoordinator open = await OpenCoordinator.StartAsync();
        using HttpResponseMessage response = await open.SendAsync(null, HttpMethod.Get, "/openapi.json");
        Assert.Equal(HttpStatusCode.OK, response.StatusCode);
        JsonNode document = JsonNode.Parse(await response.Content.ReadAsStringAsync())!;
        Assert.Equal("3.1.0", (string)document["openapi"]!);
        string[] references = [.. Nodes(document).OfType<JsonObject>().Where(node => node.ContainsKey("$ref")).Select(node => (string)node["$ref"]!)];
        Assert.NotEmpty(references);
        Assert.All(references.Distinct(), reference => Assert.True(Follow(document, reference) is not null, reference));
        foreach ((HttpMethod method, _, string route, JsonNode told) in await open.OperationsAsync(new JobId("some-job1")))
        {
            Assert.False(string.IsNullOrEmpty((string?)told["summary"]), $"{method} {route}");
            Assert.Equal(route.Count(letter => letter == '{'), told["parameters"]?.AsArray().Count(parameter => (string)parameter!["in"]! == "path") ?? 0);
        }
        string[] job = [.. document["components"]!["schemas"]!["JobConfig"]!["properties"]!.AsObject().Select(property => property.Key)];
        Assert.Contains("optimizer", job);
    }

    private static JsonNode? Follow(JsonNode document, string reference) =>
        reference.Split('/').Skip(1).Aggregate((JsonNode?)document, (node, name) => node is JsonArray list ? list[int.Parse(name, System.Globalization.CultureInfo.InvariantCulture)] : node?[name]);

    private static IEnumerable<JsonNode> Nodes(JsonNode node) => node switch
    {
        JsonObject map => map.Where(entry => entry.Value is not null).SelectMany(entry => Nodes(entry.Value!)).Prepend(map),
        JsonArray list => list.OfType<JsonNode>().SelectMany(Nodes).Prepend(list),
        _ => [],
    };
}
