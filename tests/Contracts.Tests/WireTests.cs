using System.Text.Json;
using Trainer.Contracts;

namespace Contracts.Tests;

public sealed class WireTests
{
    [Theory]
    [InlineData("demo-7k2f", true)]
    [InlineData("a.b_c-1", true)]
    [InlineData("../etc", false)]
    [InlineData("a/b", false)]
    [InlineData("Demo", false)]
    [InlineData("-a", false)]
    [InlineData("a\n", false)]
    [InlineData("", false)]
    [InlineData(null, false)]
    public void Job_ids_are_safe_file_names(string? text, bool good) => Assert.Equal(good, JobId.TryParse(text, out _));

    [Fact]
    public void New_ids_are_the_name_and_four_characters()
    {
        JobId id = JobId.New("demo");

        Assert.Matches("^demo-[a-z0-9]{4}$", id.Value);
        Assert.NotEqual(id, JobId.New("demo"));
    }

    [Fact]
    public void The_longest_name_still_gives_a_good_id() => Assert.True(JobId.TryParse(JobId.New(new string('a', 63)).Value, out _));

    [Fact]
    public void A_result_is_written_whole_and_read_back()
    {
        string path = Path.Combine(Directory.CreateTempSubdirectory().FullName, "result.json");
        var result = new RankResult { Outcome = RankOutcome.Failed, FailureClass = FailureClass.User, Message = "no", Step = 3, Loss = 1.5 };
        Assert.Null(RankResult.Read(path));

        result.Write(path);

        Assert.Equal(result, RankResult.Read(path));
        Assert.Equal([path], Directory.GetFiles(Path.GetDirectoryName(path)!));
        File.WriteAllText(path, "{\"outcome\": \"great\"}");
        Assert.Throws<JsonException>(() => RankResult.Read(path));
    }

    [Fact]
    public void Each_rank_of_an_attempt_has_a_result_file_of_its_own()
    {
        AttemptFiles files = new JobFiles("/job").Attempt(2);

        Assert.Equal("/job/attempt-2/result.json", files.ResultOf(0));
        Assert.Equal(files.Result, files.ResultOf(0));
        Assert.Equal("/job/attempt-2/result-3.json", files.ResultOf(3));
    }

    [Fact]
    public void The_JSON_of_a_heartbeat_and_its_reply_has_these_keys_for_ever()
    {
        Assert.Equal("attempt pid phase step steps loss eval_loss tokens_per_second eta_seconds last_checkpoint_step message rank endpoint ticks activity checkpoints trouble learning_rate grad_norm setback",
            Keys(JsonSerializer.Serialize(new RankReport { Attempt = 1, Pid = 2 }, ContractsJson.Default.RankReport)));
        Assert.Equal("order rendezvous", Keys(JsonSerializer.Serialize(new RankReply { Order = RankOrder.Stop }, ContractsJson.Default.RankReply)));
        Assert.Null(JsonSerializer.Deserialize("{\"order\": \"stop\"}", ContractsJson.Default.RankReply)!.Rendezvous);

        static string Keys(string json) => string.Join(' ', JsonDocument.Parse(json).RootElement.EnumerateObject().Select(key => key.Name));
    }

    [Fact]
    public void The_JSON_of_a_job_has_these_keys_for_ever()
    {
        var job = new JobView { Id = new JobId("demo-abcd"), Name = "demo", Status = JobStatus.Running, Phase = RankPhase.Training, Directory = "/d", SubmittedAt = DateTimeOffset.UnixEpoch };

        JsonElement json = JsonDocument.Parse(JsonSerializer.Serialize(job, ContractsJson.Default.JobView)).RootElement;

        Assert.Equal("schema_version id name status reason project pool ranks nodes priority attempt phase step steps loss eval_loss tokens_per_second eta_seconds "
            + "last_checkpoint_step message submitted_at started_at ended_at directory position slot_seconds attempts history", string.Join(' ', json.EnumerateObject().Select(key => key.Name)));
        Assert.Equal("running", json.GetProperty("status").GetString());
        Assert.Equal("demo-abcd", json.GetProperty("id").GetString());
    }
}
