using Trainer.Contracts;
using Trainer.Worker.Data;

namespace Trainer.Worker.Tests.Data;

public sealed class PreparedDataTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    private string Cache => _folder.Path("cache");

    [Fact]
    public void Documents_come_back_token_by_token_with_their_mask()
    {
        DataConfig data = Data(Lines(5));
        using PreparedData prepared = Prepare(data);
        var template = ChatTemplate.Create(TemplateKind.Chatml);
        Document[] documents = [.. DatasetReader.Read(data.Train[0])];
        Assert.Equal(5, prepared.Train.Count);
        for (int i = 0; i < 5; i++)
        {
            TokenizedDocument expected = template.Tokenize(documents[i].Conversation!, Fixtures.Qwen3);
            PreparedToken[] tokens = prepared.Train[i].ToArray();
            Assert.Equal(expected.Ids, tokens.Select(t => t.Id));
            Assert.Equal(expected.Trained, tokens.Select(t => t.Trained));
        }

        DataCertificate certificate = prepared.Train.Certificate;
        Assert.Equal((5, 5), (certificate.Documents, certificate.Kept));
        Assert.Equal(prepared.Train.Tokens, certificate.Tokens);
        Assert.Equal(Enumerable.Range(0, 5).Sum(i => prepared.Train.Length(i)), certificate.Tokens);
        Assert.Equal(5 * 2, certificate.TrainedTokens); // one digit and <|im_end|> each
        Assert.Equal(10.0 / certificate.Tokens, certificate.TrainedShare);
        Assert.Null(prepared.Eval);
        Assert.Throws<ArgumentOutOfRangeException>(() => prepared.Train.Length(5));
    }

    [Fact]
    public void Plain_text_ends_with_the_end_of_text_token_and_is_trained_whole()
    {
        using PreparedData prepared = Prepare(Data(["""{"text": "once upon"}"""]));
        PreparedToken[] tokens = prepared.Train[0].ToArray();
        Assert.Equal([.. Fixtures.Qwen3.Encode("once upon"), 151643], tokens.Select(t => t.Id));
        Assert.All(tokens, t => Assert.True(t.Trained));
        Assert.Equal(tokens.Length - 1, prepared.Train.Certificate.TrainedTokens);
    }

    [Fact]
    public void The_cache_is_used_again_while_its_input_is_the_same_and_built_anew_otherwise()
    {
        DataConfig data = Data(Lines(20));
        Prepare(data).Dispose();
        string file = Assert.Single(Directory.GetFiles(Cache, "*.tokens"));
        DateTime built = File.GetLastWriteTimeUtc(file);
        Prepare(data).Dispose();
        Assert.Equal(built, File.GetLastWriteTimeUtc(file));
        Assert.Single(Directory.GetFiles(Cache, "*.tokens"));

        Prepare(data with { MaxLength = 12 }).Dispose();
        Prepare(data with { MaskHistory = true }).Dispose();
        Prepare(data with { System = "S" }).Dispose();
        Prepare(data with { Train = [data.Train[0] with { Limit = 3 }] }).Dispose();
        Assert.Equal(5, Directory.GetFiles(Cache, "*.tokens").Length);

        File.AppendAllText(data.Train[0].Path, Lines(1)[0] + "\n");
        using PreparedData grown = Prepare(data);
        Assert.Equal(21, grown.Train.Count);
        Assert.Equal(6, Directory.GetFiles(Cache, "*.tokens").Length);
        Assert.Empty(Directory.GetFiles(Cache, "*.partial*"));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(71)]
    [InlineData(-1)]
    public void A_damaged_cache_file_is_built_anew(int cut)
    {
        DataConfig data = Data(Lines(20));
        Prepare(data).Dispose();
        string file = Assert.Single(Directory.GetFiles(Cache, "*.tokens"));
        byte[] bytes = File.ReadAllBytes(file);
        File.WriteAllBytes(file, cut < 0 ? bytes[..^1] : bytes[..cut]);
        Prepare(data).Dispose();
        Assert.Equal(bytes, File.ReadAllBytes(file));

        File.WriteAllText(Path.ChangeExtension(file, ".json"), "{");
        using PreparedData prepared = Prepare(data);
        Assert.Equal(20, prepared.Train.Certificate.Kept);
    }

    [Fact]
    public async Task A_process_waits_while_another_prepares_in_the_same_folder()
    {
        DataConfig data = Data(Lines(20));
        Directory.CreateDirectory(Cache);
        Task<PreparedData> waiting;
        using (new FileStream(Path.Combine(Cache, ".lock"), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None))
        {
            waiting = Task.Run(() => Prepare(data));
            await Task.Delay(200);
            Assert.False(waiting.IsCompleted);
            Assert.Empty(Directory.GetFiles(Cache, "*.tokens"));
        }

        using PreparedData prepared = await waiting;
        Assert.Equal(20, prepared.Train.Certificate.Kept);
    }

    [Fact]
    public void A_failed_build_leaves_nothing_behind()
    {
        Assert.Throws<JobInputException>(() => Prepare(Data([.. Lines(3), "{"])));
        Assert.Empty(Directory.GetFiles(Cache));
    }

    [Fact]
    public void A_held_out_share_and_the_rest_are_all_documents()
    {
        using PreparedData prepared = Prepare(Data(Lines(100)) with { EvalFraction = 0.1 }, seed: 3);
        Assert.Equal((90, 10), (prepared.Train.Count, prepared.Eval!.Count));
        var split = new HeldOutSplit(3, 0.1);
        string[] held = [.. Enumerable.Range(0, prepared.Eval.Count).Select(i => Fixtures.Qwen3.Decode(prepared.Eval[i].ToArray().Select(t => t.Id)))];
        Assert.Equal(Enumerable.Range(0, 100).Where(i => split.Contains(i)).Select(Question), held.Select(text => text.Split('\n')[1].Split('<')[0]));
        using PreparedData again = Prepare(Data(Lines(100)) with { EvalFraction = 0.1 }, seed: 3);
        Assert.Equal(prepared.Eval.Certificate, again.Eval!.Certificate);
    }

    [Fact]
    public void Data_of_its_own_is_evaluated_whole()
    {
        DataConfig data = Data(Lines(10)) with { EvalFraction = 0.5, Eval = [new() { Path = _folder.Write("eval.jsonl", Lines(4)[3]) }] };
        using PreparedData prepared = Prepare(data);
        Assert.Equal((10, 1), (prepared.Train.Count, prepared.Eval!.Count));
    }

    [Fact]
    public void Documents_that_are_too_long_are_cut_dropped_or_refused()
    {
        string longLine = """{"prompt": "q", "completion": "one two three four five six seven eight nine ten eleven twelve"}""";
        DataConfig data = Data([.. Lines(2), longLine]) with { MaxLength = 16 };
        using (PreparedData cut = Prepare(data))
        {
            Assert.Equal((3, 16, 1), (cut.Train.Count, cut.Train.Length(2), cut.Train.Certificate.Truncated));
            Assert.True(cut.Train.Certificate.Longest > 16);
            Assert.Equal(16, cut.Train.LongestDocument);
        }

        using (PreparedData drop = Prepare(data with { Overlong = OverlongPolicy.Drop }))
        {
            Assert.Equal((2, 1), (drop.Train.Count, drop.Train.Certificate.Dropped));
        }

        var e = Assert.Throws<JobInputException>(() => Prepare(data with { Overlong = OverlongPolicy.Error }));
        Assert.Matches($"^{data.Train[0].Path}:3: the document has [0-9]+ tokens, more than max_length 16; shorten it", e.Message);
    }

    [Fact]
    public void Documents_without_a_trained_token_are_counted_and_kept_out_and_doubles_are_counted()
    {
        string silent = """{"messages": [{"role": "user", "content": "hm"}]}""";
        string spoken = """{"messages": [{"role": "user", "content": "hm"}, {"role": "assistant", "content": "a"}]}""";
        using PreparedData prepared = Prepare(Data([spoken, silent, spoken, silent, spoken]));
        DataCertificate certificate = prepared.Train.Certificate;
        Assert.Equal((5, 3, 2, 2), (certificate.Documents, certificate.Kept, certificate.WithoutTrainedTokens, certificate.Duplicates));
        Assert.Contains("3 of 5 documents", certificate.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public void Data_in_which_nothing_would_be_trained_is_refused_with_the_reason()
    {
        string silent = """{"messages": [{"role": "user", "content": "hm"}]}""";
        var e = Assert.Throws<JobInputException>(() => Prepare(Data([silent, silent])));
        Assert.Contains("no token of the 2 documents would be trained: they hold no text of an assistant within the first 2048 tokens", e.Message, StringComparison.Ordinal);
        using PreparedData trained = Prepare(Data([silent]) with { TrainOnPrompt = true });
        Assert.Equal(1, trained.Train.Count);
        var dropped = Assert.Throws<JobInputException>(() => Prepare(Data(Lines(2)) with { MaxLength = 3, Overlong = OverlongPolicy.Drop }));
        Assert.Contains("2 are longer than max_length 3", dropped.Message, StringComparison.Ordinal);
        var none = Assert.Throws<JobInputException>(() => Prepare(Data(Lines(1)) with { EvalFraction = 0.01 }));
        Assert.Contains("eval_fraction 0.01 holds out no usable document of 1", none.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_role_unknown_to_the_template_is_named_with_its_line()
    {
        DataConfig data = Data([Lines(1)[0], """{"prompt": "a", "completion": "b"}""", """{"messages": 1}"""]);
        string path = _folder.Write("role.jsonl", """
            {"messages": [{"role": "user", "content": "a"}]}
            {"messages": [{"role": "narrator", "content": "a"}]}
            """);
        var e = Assert.Throws<JobInputException>(() => Prepare(data with { Train = [new() { Path = path }] }));
        Assert.StartsWith($"{path}:2: message 1 has the role \"narrator\"", e.Message, StringComparison.Ordinal);
    }

    private static string Question(int i) => $"q {i}";

    private static string[] Lines(int count) =>
        [.. Enumerable.Range(0, count).Select(i => $$"""{"prompt": "{{Question(i)}}", "completion": "{{i % 10}}"}""")];

    private DataConfig Data(string[] lines) =>
        new() { Train = [new() { Path = _folder.Write("train.jsonl", string.Join('\n', lines) + "\n") }], Template = TemplateKind.Chatml };

    private PreparedData Prepare(DataConfig data, int seed = 1) => PreparedData.Prepare(
        data, seed, Fixtures.Qwen3, ChatTemplate.Create(TemplateKind.Chatml, ChatOptions.From(data)), Cache);
}
