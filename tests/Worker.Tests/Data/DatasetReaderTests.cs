using System.IO.Compression;
using System.Text;
using Trainer.Contracts;
using Trainer.Worker.Data;

namespace Trainer.Worker.Tests.Data;

public sealed class DatasetReaderTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Messages_bring_roles_contents_thoughts_tools_and_calls()
    {
        Document document = Single("""
            {"tools": [{"name": "f", "n": 1.0}], "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"x":1}}}, {"name": "g", "arguments": "{\"y\":2}"}]}, {"role": "tool", "content": "r", "tool_calls": null}]}
            """);
        Conversation conversation = document.Conversation!;
        Assert.Equal(["""{"name": "f", "n": 1.0}"""], conversation.Tools);
        Assert.Equal([("user", "ab"), ("assistant", ""), ("tool", "r")], Turns(document));
        Assert.Equal("hm", conversation.Messages[1].Reasoning);
        Assert.Equal([new("f", """{"x": 1}"""), new("g", """
            "{\"y\":2}"
            """, """{"y":2}""")], conversation.Messages[1].ToolCalls);
    }

    [Fact]
    public void Tools_may_be_a_string_of_json() => Assert.Equal(
        ["""{"name": "f"}"""],
        Single("""{"tools": "[{\"name\":\"f\"}]", "messages": [{"role": "user", "content": "a"}]}""").Conversation!.Tools);

    [Fact]
    public void ShareGpt_names_become_roles()
    {
        Document document = Single("""
            {"system": "S", "conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"x\": 1}}"}, {"from": "observation", "value": "o"}, {"from": "gpt", "value": "a"}]}
            """);
        Assert.Equal([("system", "S"), ("user", "q"), ("assistant", ""), ("tool", "o"), ("assistant", "a")], Turns(document));
        Assert.Equal([new("f", """{"x": 1}""")], document.Conversation!.Messages[2].ToolCalls);
    }

    [Fact]
    public void Conversations_may_be_written_with_role_and_content() => Assert.Equal(
        [("user", "q"), ("assistant", "a")],
        Turns(Single("""{"conversations": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}""")));

    [Fact]
    public void Alpaca_joins_instruction_and_input_and_replays_its_history()
    {
        Assert.Equal(
            [("system", "S"), ("user", "h1"), ("assistant", "h2"), ("user", "do\nthis"), ("assistant", "done")],
            Turns(Single("""{"instruction": "do", "input": "this", "output": "done", "system": "S", "history": [["h1", "h2"]]}""")));
        Assert.Equal([("user", "do"), ("assistant", "done")], Turns(Single("""{"instruction": "do", "input": "", "output": "done", "system": ""}""")));
    }

    [Fact]
    public void Question_and_answer_need_only_a_mapping()
    {
        string path = _folder.Write("gsm.jsonl", """{"question": "2+2?", "answer": "4"}""");
        var dataset = new DatasetConfig { Path = path, Mapping = new Dictionary<string, string> { ["prompt"] = "question", ["completion"] = "answer" } };
        Assert.Equal([("user", "2+2?"), ("assistant", "4")], Turns(DatasetReader.Read(dataset).Single()));
    }

    [Fact]
    public void Text_is_taken_as_it_stands() => Assert.Equal(("once", null), (Single("""{"text": "once"}""").Text, Single("""{"text": "once"}""").Conversation));

    [Fact]
    public void Byte_order_mark_windows_line_ends_blank_lines_and_a_missing_last_line_end_are_fine()
    {
        string path = _folder.Path("w.jsonl");
        File.WriteAllText(path, "{\"text\": \"a\"}\r\n\r\n  \n{\"text\": \"b\"}\r\n{\"text\": \"c\"}", new UTF8Encoding(encoderShouldEmitUTF8Identifier: true));
        Assert.Equal([("a", 1), ("b", 4), ("c", 5)], Read(path).Select(d => (d.Text, d.Line)));
    }

    [Fact]
    public void Gzip_is_told_by_its_first_bytes()
    {
        foreach (string name in (string[])["a.jsonl.gz", "a.jsonl"])
        {
            WriteGzip(name, "{\"text\": \"a\"}\n{\"text\": \"b\"}\n");
            Assert.Equal(["a", "b"], Read(_folder.Path(name)).Select(d => d.Text));
        }
    }

    [Fact]
    public void Lines_longer_than_the_buffer_are_read_whole()
    {
        string[] texts = [.. Enumerable.Range(0, 40).Select(i => new string((char)('a' + (i % 26)), i * 9973))];
        string path = _folder.Write("long.jsonl", string.Concat(texts.Select(text => $"{{\"text\": \"{text}\"}}\n")));
        Assert.Equal(texts, Read(path).Select(d => d.Text));
    }

    [Fact]
    public void A_limit_takes_the_first_documents()
    {
        string path = _folder.Write("l.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\"}\nnot json\n");
        Assert.Equal(["a", "b"], DatasetReader.Read(new DatasetConfig { Path = path, Limit = 2 }).Select(d => d.Text));
    }

    [Fact]
    public void Every_bad_line_can_be_collected_and_left_out()
    {
        string path = _folder.Write("m.jsonl", "{\"text\": \"a\"}\n{\n{\"text\": 1}\n{\"text\": \"b\"}\n");
        var problems = new List<string>();
        Assert.Equal(["a", "b"], DatasetReader.Read(new DatasetConfig { Path = path }, e => problems.Add(e.Message)).Select(d => d.Text));
        Assert.Equal([$"{path}:2:", $"{path}:3:"], problems.Select(p => p[..(path.Length + 3)]));
    }

    [Theory]
    [InlineData("""{"text": "a}""", "2: malformed JSON at byte ", "write one complete JSON object per line")]
    [InlineData("""{"text": "a"} x""", "2: malformed JSON at byte 15", "write one complete JSON object per line")]
    [InlineData("[1, 2", "2: malformed JSON", "looks like a JSON list")]
    [InlineData("[]", "2: found a JSON list, not an object", "jq -c '.[]'")]
    [InlineData("7", "2: found a number, not an object", "one JSON object per line")]
    [InlineData("""{"content": "a", "id": 1}""", "2: field \"text\" is missing (fields: content, id)", "mapping: {text: ...}")]
    [InlineData("""{"text": null}""", "2: field \"text\" is null", "repair the line")]
    [InlineData("""{"text": ["a"]}""", "2: field \"text\" is a list, not a string", "write it as a string")]
    [InlineData("{\"text\": \"\\ud800\"}", "2: a string is not valid Unicode", "save the file as UTF-8")]
    public void A_bad_line_is_named_with_its_cure(string line, string what, string cure) => AssertBad("""{"text": "ok"}""", line, what, cure);

    [Theory]
    [InlineData("""{"messages": "hi"}""", "field \"messages\" is a string, not a list", "write it as a list")]
    [InlineData("""{"messages": ["hi"]}""", "message 1: found a string where an object belongs", "write it as an object")]
    [InlineData("""{"messages": [{"content": "a"}]}""", "message 1: \"role\" is missing or null (fields: content)", "add it")]
    [InlineData("""{"messages": [{"role": 1, "content": "a"}]}""", "message 1: field \"role\" is a number, not a string", "write it")]
    [InlineData("""{"messages": [{"role": "user", "content": 3}]}""", "message 1: content is a number", "write a string or a list")]
    [InlineData("""{"messages": [{"role": "user", "content": null}]}""", "message 1: \"content\" is missing or null", "add it")]
    [InlineData("""{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}""", "message 1: content has a part of type \"image_url\"", "remove")]
    [InlineData("""{"messages": [{"role": "user", "content": "a", "tool_calls": [{"name": "f", "arguments": {}}]}]}""", "message 1: role \"user\" has tool_calls", "only an assistant")]
    [InlineData("""{"messages": [{"role": "assistant", "content": "a", "tool_calls": [{"name": "f"}]}]}""", "message 1: \"arguments\" is missing", "add it")]
    [InlineData("""{"messages": [{"role": "assistant", "content": "a", "tool_calls": [{"name": "f", "arguments": 3}]}]}""", "message 1: the arguments of tool call \"f\" are a number", "write an object")]
    [InlineData("""{"messages": [], "tools": {"name": "f"}}""", "field \"tools\" is an object, not a list", "write it as a list")]
    [InlineData("""{"messages": [], "tools": "["}""", "field \"tools\" is a string that holds no valid JSON", "correct or remove")]
    public void A_bad_conversation_is_named_with_its_cure(string line, string what, string cure) =>
        AssertBad("""{"messages": [{"role": "user", "content": "ok"}]}""", line, "2: " + what, cure);

    [Fact]
    public void A_bad_first_line_says_what_the_fields_are()
    {
        string path = _folder.Write("f.jsonl", """{"question": "a", "answer": "b"}""");
        var e = Assert.Throws<JobInputException>(() => Read(path));
        Assert.StartsWith($"{path}:1: cannot tell the format from the fields question, answer; name the fields", e.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("completion", "reply", "field \"reply\" is missing (fields: prompt, completion); correct the mapping")]
    [InlineData("promt", "prompt", "the mapping names \"promt\", which format completion does not have; map prompt, completion, system")]
    public void A_wrong_mapping_is_named(string ours, string theirs, string message)
    {
        string path = _folder.Write("w.jsonl", """{"prompt": "a", "completion": "b"}""");
        var dataset = new DatasetConfig { Path = path, Format = DatasetFormat.Completion, Mapping = new Dictionary<string, string> { [ours] = theirs } };
        var e = Assert.Throws<JobInputException>(() => DatasetReader.Read(dataset).ToList());
        Assert.StartsWith($"{path}:1: {message}", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Bytes_that_are_not_utf8_are_named_with_their_line()
    {
        string path = _folder.Path("latin.jsonl");
        File.WriteAllBytes(path, [.. "{\"text\": \"a\"}\n{\"text\": \""u8, 0xE9, .. "\"}\n"u8]);
        var e = Assert.Throws<JobInputException>(() => Read(path));
        Assert.StartsWith($"{path}:2: a string is not valid Unicode; save the file as UTF-8", e.Message, StringComparison.Ordinal);
        File.WriteAllText(path, "{\"text\": \"a\"}", Encoding.Unicode);
        Assert.Contains("is UTF-16; convert it", Assert.Throws<JobInputException>(() => Read(path)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Missing_empty_and_damaged_files_are_named()
    {
        AssertMessage(_folder.Path("none.jsonl"), "no such file; correct the dataset's path");
        AssertMessage(_folder.Path("none/none.jsonl"), "no such file; correct the dataset's path");
        AssertMessage(_folder.Root, "is a directory; name a JSONL file in it");
        AssertMessage(_folder.Write("empty.jsonl", "\n \n"), "the dataset is empty");
        WriteGzip("cut.gz", string.Concat(Enumerable.Range(0, 2000).Select(i => $"{{\"text\": \"{i * 7919}\"}}\n")));
        byte[] bytes = File.ReadAllBytes(_folder.Path("cut.gz"));
        File.WriteAllBytes(_folder.Path("cut.gz"), bytes[..(bytes.Length / 2)]);
        AssertMessage(_folder.Path("cut.gz"), "the gzip data is damaged or cut off");
        File.WriteAllBytes(_folder.Path("random.jsonl.gz"), [7, 1, 2, 3]);
        AssertMessage(_folder.Path("random.jsonl.gz"), "is not compressed by gzip");
        File.WriteAllBytes(_folder.Path("train.parquet"), [.. "PAR1"u8, 0, 0, 0]);
        AssertMessage(_folder.Path("train.parquet"), "is a Parquet file; write JSON Lines instead");
        File.WriteAllBytes(_folder.Path("train.zst"), [0x28, 0xB5, 0x2F, 0xFD, 0]);
        AssertMessage(_folder.Path("train.zst"), "is compressed by Zstandard; decompress it");
        File.WriteAllBytes(_folder.Path("train.zip"), [.. "PK"u8, 3, 4, 0]);
        AssertMessage(_folder.Path("train.zip"), "is a zip archive");
        File.WriteAllText(_folder.Path("pointer.jsonl"), "version https://git-lfs.github.com/spec/v1\n");
        AssertMessage(_folder.Path("pointer.jsonl"), "is a Git LFS pointer");
        WriteGzip("parquet.gz", "PAR1....");
        AssertMessage(_folder.Path("parquet.gz"), "what is compressed in it is a Parquet file");
        WriteGzip("page.gz", "<!DOCTYPE html>");
        AssertMessage(_folder.Path("page.gz"), "what is compressed in it is HTML or XML");
        File.WriteAllText(_folder.Path("page.jsonl"), "<html>");
        AssertMessage(_folder.Path("page.jsonl"), "perhaps an error page was saved");
        File.WriteAllBytes(_folder.Path("twice.gz"), Gzip(Gzip([1, 2, 3])));
        AssertMessage(_folder.Path("twice.gz"), "what is compressed in it is compressed by gzip again");
        WriteGzip("blank.gz", "\n{\"text\": \"t\"}\n");
        Assert.Single(Read(_folder.Path("blank.gz")));
        File.WriteAllText(_folder.Path("plain.gz"), """{"text": "t"}""");
        Assert.Single(Read(_folder.Path("plain.gz")));
    }

    private static void AssertMessage(string path, string message)
    {
        var e = Assert.Throws<JobInputException>(() => Read(path));
        Assert.StartsWith(path + ":", e.Message, StringComparison.Ordinal);
        Assert.Contains(message, e.Message, StringComparison.Ordinal);
    }

    private void AssertBad(string first, string line, string what, string cure)
    {
        string path = _folder.Write("bad.jsonl", $"{first}\n{line}\n");
        var e = Assert.Throws<JobInputException>(() => Read(path));
        Assert.StartsWith($"{path}:{what}", e.Message, StringComparison.Ordinal);
        Assert.Contains(cure, e.Message, StringComparison.Ordinal);
    }

    private void WriteGzip(string name, string text) => File.WriteAllBytes(_folder.Path(name), Gzip(Encoding.UTF8.GetBytes(text)));

    private static byte[] Gzip(byte[] bytes)
    {
        var result = new MemoryStream();
        using (var gzip = new GZipStream(result, CompressionLevel.Fastest))
        {
            gzip.Write(bytes);
        }

        return result.ToArray();
    }

    private Document Single(string line) => Read(_folder.Write("one.jsonl", line.ReplaceLineEndings(" "))).Single();

    private static List<Document> Read(string path) => [.. DatasetReader.Read(new DatasetConfig { Path = path })];

    private static IEnumerable<(string, string)> Turns(Document document) => document.Conversation!.Messages.Select(m => (m.Role, m.Content));
}
