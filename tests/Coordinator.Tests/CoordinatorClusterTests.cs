using System.Net;
using Trainer.Contracts;
using Trainer.Coordinator;

namespace Coordinator.Tests;

public sealed class CoordinatorClusterTests
{
    private const string Nowhere = "Host=127.0.0.1;Port=1;Database=trainer;Username=nobody";

    [Fact]
    public void Without_a_database_a_coordinator_is_alone() => Assert.Null(CoordinatorCluster.Create(null, null, null, null, null));

    [Fact]
    public void On_loopback_a_database_is_enough()
    {
        CoordinatorCluster cluster = CoordinatorCluster.Create(Nowhere, null, null, null, null)!;

        Assert.Equal(("trainer", new IPEndPoint(IPAddress.Loopback, 11111), Nowhere), (cluster.Name, cluster.Silo, cluster.Database));
    }

    [Theory]
    [InlineData(null, null, "127.0.0.1:2", null, "--silo-key need --database")]
    [InlineData("nonsense", null, null, null, "is no connection string")]
    [InlineData(Nowhere, null, "10.0.0.5:11111", null, "needs --silo-certificate")]
    [InlineData(Nowhere, null, "0.0.0.0:11111", null, "where the other coordinators reach this one is expected")]
    [InlineData(Nowhere, null, "here", null, "where the other coordinators reach this one is expected")]
    [InlineData(Nowhere, null, null, "/nowhere.pem", "/nowhere.pem")]
    public void Wrong_options_are_refused_with_the_cure(string? database, string? name, string? silo, string? certificate, string expected) =>
        Assert.Contains(expected, Assert.Throws<ConfigException>(() => CoordinatorCluster.Create(database, name, silo, certificate, null)).Message, StringComparison.Ordinal);

    [Fact]
    public async Task A_cluster_that_cannot_be_joined_is_a_sentence_and_leaves_the_home_free()
    {
        using var home = new TestHome();
        CoordinatorCluster nowhere = CoordinatorCluster.Create(Nowhere, null, null, null, null)!;

        string message = (await Assert.ThrowsAsync<ConfigException>(() => CoordinatorHost.StartAsync(home.Home, new CoordinatorOptions(), cluster: nowhere))).Message;

        Assert.Contains("database", message, StringComparison.Ordinal);
        await using CoordinatorHost alone = await CoordinatorHost.StartAsync(home.Home, new CoordinatorOptions());
    }
}
