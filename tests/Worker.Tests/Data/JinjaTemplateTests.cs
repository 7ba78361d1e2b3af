using System.Text;
using System.Text.Json;
using Trainer.Contracts;
using Trainer.Worker.Data;
using Trainer.Worker.Tests.Checkpoints;

namespace Trainer.Worker.Tests.Data;

/// <summary>What a model's own chat template decides. The texts have the published ones' form, shortened.</summary>
public sealed class JinjaTemplateTests : IDisposable
{
    // As in Qwen1.5 and Qwen2.
    private const string Helpful = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        + @"{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
        + @"{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}";

    // As in Qwen2.5-Instruct.
    private const string Qwen25 = @"{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}"
        + @"{%- else %}{{- '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n' }}{%- endif %}";

    private const string NoDefault = @"{%- if messages[0].role == 'system' %}{{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}{%- endif %}";
    private const string Thoughts = NoDefault + @"{{- '<|im_start|>assistant\n<think>\n' }}";
    private const string Foreign = "{{bos_token}}{{'<|User|>' + messages[0]['content']}}";

    private static readonly Conversation s_question = new(new Message("user", "2+2?"));

    private readonly TemporaryDirectory _directory = new();

    public void Dispose() => _directory.Dispose();

    [Theory]
    [InlineData("qwen2", Helpful, "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user", "\"You are a helpful assistant.\", as in the model's own")]
    [InlineData("qwen2", Qwen25, "<|im_start|>system\n" + Qwen25Template.DefaultSystem + "<|im_end|>\n<|im_start|>user", "chat template: qwen2.5")]
    [InlineData("qwen2", NoDefault, "<|im_start|>user", "without a default system message")]
    [InlineData("qwen2", Foreign, "<|im_start|>system\nYou are Qwen", "warning: the model's own chat template is not ChatML")]
    [InlineData("qwen2", Thoughts, "<|im_start|>system\nYou are Qwen", "warning: the model's own chat template has thoughts")]
    [InlineData("qwen2", null, "<|im_start|>system\nYou are Qwen", "chat template: qwen2.5")]
    [InlineData("qwen3", Thoughts, "<|im_start|>user", "chat template: qwen3")]
    [InlineData("qwen3", NoDefault, "<|im_start|>user", "warning: the model's own chat template has no thoughts")]
    [InlineData("qwen3", Thoughts + Helpful, "<|im_start|>user", "warning: the model's own chat template has a default system message")]
    [InlineData("qwen2", "<|im_start|>system\nRaw.<|im_end|>", "<|im_start|>system\nYou are Qwen", "warning: the model's own chat template has a system turn")]
    public void Without_a_template_of_the_job_conversations_begin_as_with_the_models_own(string modelType, string? own, string beginning, string explanation)
    {
        Write(own is null ? "{}" : JsonSerializer.Serialize(new { chat_template = own }));
        var template = ChatTemplate.Of(new DataConfig { Train = [] }, _directory.Path, modelType);
        Assert.StartsWith(beginning, Render(template), StringComparison.Ordinal);
        Assert.Contains(explanation, template.Explanation, StringComparison.Ordinal);
        Assert.Equal(explanation.Contains("warning", StringComparison.Ordinal), template.Explanation.Contains("warning", StringComparison.Ordinal));
    }

    [Fact]
    public void The_jobs_own_words_come_first()
    {
        Write(JsonSerializer.Serialize(new { chat_template = Helpful }));
        Assert.StartsWith("<|im_start|>system\nYou are Qwen", Render(ChatTemplate.Of(new DataConfig { Train = [], Template = TemplateKind.Qwen25 }, _directory.Path, "qwen2")), StringComparison.Ordinal);
        Assert.StartsWith("<|im_start|>system\nMine.", Render(ChatTemplate.Of(new DataConfig { Train = [], System = "Mine." }, _directory.Path, "qwen2")), StringComparison.Ordinal);
    }

    [Fact]
    public void An_empty_system_message_of_the_job_is_none_in_training_and_in_the_exported_template()
    {
        Write(JsonSerializer.Serialize(new { chat_template = Qwen25 + "{{ '" + Qwen25Template.DefaultSystem + "' }}" + NoDefault }));
        var silent = ChatTemplate.Of(new DataConfig { Train = [], System = "" }, _directory.Path, "qwen2");
        Assert.StartsWith("<|im_start|>user", Render(silent), StringComparison.Ordinal);
        Assert.Contains("without a system message where conversations bring none", silent.Explanation, StringComparison.Ordinal);
        Assert.StartsWith("<|im_start|>user", Render(ChatTemplate.Of(new DataConfig { Train = [], System = "" }, _directory.Path, "qwen3")), StringComparison.Ordinal);
        string own = string.Concat(silent.Render(new Conversation(new Message("system", "Own."), s_question.Messages[0])).Select(segment => segment.Text));
        Assert.StartsWith("<|im_start|>system\nOwn.<|im_end|>\n", own, StringComparison.Ordinal);

        JinjaTemplate.SetDefaultSystem(_directory.Path, "");
        JinjaTemplate exported = JinjaTemplate.Find(_directory.Path)!;
        Assert.Equal((null, false, null), (exported.DefaultSystem, exported.IsUnclear, exported.Defect));
        Assert.Contains("{%- else %}{{- '' }}{%- endif %}{{ '' }}", exported.Text, StringComparison.Ordinal);
        Assert.StartsWith("<|im_start|>user", Render(ChatTemplate.Of(new DataConfig { Train = [] }, _directory.Path, "qwen2")), StringComparison.Ordinal);
    }

    [Fact]
    public void Without_a_system_message_tools_follow_the_line_breaks_that_the_exported_template_writes()
    {
        var template = ChatTemplate.Create(TemplateKind.Qwen25, new ChatOptions { System = "" });
        string text = string.Concat(template.Render(new Conversation([new Message("user", "2+2?")], ["{}"])).Select(segment => segment.Text));
        Assert.StartsWith("<|im_start|>system\n\n\n# Tools", text, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(Helpful, null)]
    [InlineData(Qwen25, null)]
    [InlineData(Thoughts, null)]
    [InlineData("{{ {'a': {'b': '}}'}}.a }}{# {% if #}{% raw %}{% if {{{% endraw %}{% set x = 1 %}{%- set y -%}y{%- endset -%}{% set z | replace('=', '') %}{% endset %}", null)]
    [InlineData("{% generation %}{% for a in b if a %}{% else %}{% break %}{% endfor %}{% endgeneration %}", null)]
    [InlineData("one\n{% if a %}\n{% for b in c %}{% endfor %}", "line 2: {% if %} is never closed")]
    [InlineData("{% for b in c %}\n{% endif %}", "line 2: {% endif %} where {% for %} is to be closed")]
    [InlineData("a\n\n{% endfor %}", "line 3: {% endfor %} closes nothing")]
    [InlineData("{% else %}", "line 1: {% else %} outside of an if")]
    [InlineData("{% for a in b %}{% elif a %}{% endfor %}", "line 1: {% elif %} outside of an if")]
    [InlineData("{% if a %}{% elif b %}{% else %}\n{% elif c %}{% endif %}", "line 2: {% elif %} after {% else %}")]
    [InlineData("{{ a }}{% endraw %}", "line 1: {% endraw %} closes nothing")]
    [InlineData("{% raw %}{%}", "line 1: {% raw %} is never closed")]
    [InlineData("\n{{ 'a' + b }", "line 2: {{ is never closed, or a bracket or quote in it is not")]
    [InlineData("\n{{ 'a }}", "line 2: {{ is never closed, or a bracket or quote in it is not")]
    [InlineData("{% if a }}{% endif %}", "line 1: {% is never closed, or a bracket or quote in it is not")]
    [InlineData("{# a", "line 1: {# is never closed")]
    [InlineData("{{ a[0 }}", "line 1: {{ is never closed, or a bracket or quote in it is not")]
    [InlineData("{{- -}}", "line 1: {{ }} has nothing in it")]
    [InlineData("{% foo %}", "line 1: there is no tag {% foo %}")]
    [InlineData("{% do x.append(1) %}{% include 'a' %}", null)]
    [InlineData("{% raw %}{% endif %}", "line 1: {% raw %} is never closed")]
    public void A_template_that_cannot_be_parsed_is_found(string text, string? error) => Assert.Equal(error, new JinjaTemplate(text).Defect);

    [Fact]
    public void A_published_template_can_be_parsed()
    {
        JinjaTemplate published = JinjaTemplate.Find(Fixtures.TokenizerDirectory)!;
        Assert.True(published.HasThoughts);
        Assert.Null(published.Defect);
    }

    [Theory]
    [InlineData(TemplateKind.Auto)]
    [InlineData(TemplateKind.Qwen25)]
    public void A_syntax_error_of_the_models_own_template_is_a_warning_that_names_file_and_line(TemplateKind kind)
    {
        File.WriteAllText(_directory.File("chat_template.jinja"), Helpful + "\n{% if x %}");
        string said = ChatTemplate.Of(new DataConfig { Train = [], Template = kind }, _directory.Path, "qwen2").Explanation;
        Assert.Contains($"warning: {_directory.File("chat_template.jinja")}: line 2: {{% if %}} is never closed; ", said, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("""{"chat_template": 5}""", "chat_template is neither a text nor a list of named ones")]
    [InlineData("""{"chat_template": [{"name": "rag", "template": "x"}]}""", "chat_template has no template named \"default\"")]
    public void A_template_that_is_none_is_a_warning(string config, string defect)
    {
        Write(config);
        Assert.StartsWith($"{_directory.File("tokenizer_config.json")}: {defect}; ", ChatTemplate.Of(new DataConfig { Train = [] }, _directory.Path, "qwen2").Warning, StringComparison.Ordinal);
    }

    [Fact]
    public void A_template_that_is_no_utf_8_is_a_warning_and_nothing_is_said_of_what_it_exports()
    {
        File.WriteAllBytes(_directory.File("chat_template.jinja"), [.. Encoding.UTF8.GetBytes(Helpful), 0xFF]);
        var template = ChatTemplate.Of(new DataConfig { Train = [], System = "" }, _directory.Path, "qwen2");
        Assert.StartsWith($"{_directory.File("chat_template.jinja")}: is not UTF-8; ", template.Warning, StringComparison.Ordinal);
        Assert.DoesNotContain("exported", template.Explanation, StringComparison.Ordinal);
    }

    [Fact]
    public void A_template_that_cannot_be_read_is_a_warning_and_a_config_that_is_no_utf_8_is_refused()
    {
        File.CreateSymbolicLink(_directory.File("chat_template.jinja"), _directory.File("gone"));
        Assert.Contains("chat_template.jinja: cannot be read (", ChatTemplate.Of(new DataConfig { Train = [] }, _directory.Path, "qwen2").Warning, StringComparison.Ordinal);
        File.Delete(_directory.File("chat_template.jinja"));
        File.WriteAllBytes(_directory.File("tokenizer_config.json"), [.. "{\"chat_template\": \""u8, 0xFF, .. "\"}"u8]);
        Assert.Contains("tokenizer_config.json: is not UTF-8; download the file again", Assert.Throws<JobInputException>(
            () => ChatTemplate.Of(new DataConfig { Train = [] }, _directory.Path, "qwen2")).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Of_several_templates_the_default_one_counts_and_a_file_of_its_own_before_all()
    {
        Write(JsonSerializer.Serialize(new { chat_template = new[] { new { name = "tool_use", template = Foreign }, new { name = "default", template = Helpful } } }));
        Assert.Equal("You are a helpful assistant.", JinjaTemplate.Find(_directory.Path)!.DefaultSystem);
        File.WriteAllText(_directory.File("chat_template.jinja"), NoDefault);
        Assert.Null(JinjaTemplate.Find(_directory.Path)!.DefaultSystem);
    }

    [Theory]
    [InlineData("Answer in French.")]
    [InlineData("It's \"quoted\" \\ C:\\new and\nlong, {{ x }} {% raw %}.\r\n")]
    public void A_default_system_message_of_the_job_becomes_that_of_the_exported_template_and_is_read_back(string system)
    {
        Write(JsonSerializer.Serialize(new { model_max_length = 7, chat_template = Qwen25 + "{{ '" + Qwen25Template.DefaultSystem + "' }}" + NoDefault }));
        JinjaTemplate.SetDefaultSystem(_directory.Path, system);
        JinjaTemplate config = JinjaTemplate.Find(_directory.Path)!;
        Assert.Equal(system, config.DefaultSystem);
        Assert.DoesNotContain("You are Qwen", config.Text, StringComparison.Ordinal);
        Assert.EndsWith(NoDefault, config.Text, StringComparison.Ordinal);
        Assert.StartsWith($"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user", Render(ChatTemplate.Of(new DataConfig { Train = [] }, _directory.Path, "qwen2")), StringComparison.Ordinal);
        using (var json = JsonDocument.Parse(File.ReadAllBytes(_directory.File("tokenizer_config.json"))))
        {
            Assert.Equal(7, json.RootElement.GetProperty("model_max_length").GetInt32());
        }

        File.WriteAllText(_directory.File("chat_template.jinja"), Helpful);
        JinjaTemplate.SetDefaultSystem(_directory.Path, system);
        Assert.Equal(system, JinjaTemplate.Find(_directory.Path)!.DefaultSystem);

        File.WriteAllText(_directory.File("chat_template.jinja"), NoDefault);
        JinjaTemplate.SetDefaultSystem(_directory.Path, system);
        Assert.Equal(NoDefault, File.ReadAllText(_directory.File("chat_template.jinja")));
    }

    [Fact]
    public void Of_named_templates_the_default_one_gets_the_jobs_system_message()
    {
        Write(JsonSerializer.Serialize(new { chat_template = new[] { new { name = "default", template = Helpful }, new { name = "other", template = Helpful } } }));
        JinjaTemplate.SetDefaultSystem(_directory.Path, "Mine.");
        using var json = JsonDocument.Parse(File.ReadAllBytes(_directory.File("tokenizer_config.json")));
        Assert.Contains("system\\nMine.<|im_end|>", json.RootElement.GetProperty("chat_template")[0].GetProperty("template").GetString(), StringComparison.Ordinal);
        Assert.Equal(Helpful, json.RootElement.GetProperty("chat_template")[1].GetProperty("template").GetString());
    }

    [Theory]
    [InlineData("{{ \"<|im_start|>system\\nDon't guess.<|im_end|>\\n\" }}", "Don't guess.", false)]
    [InlineData("{{ '<|im_start|>system\\nDon\\'t guess.\\\\n<|im_end|>' }}", "Don't guess.\\n", false)]
    [InlineData("{{ '<|im_start|>system\nTwo\nlines.<|im_end|>\n' }}", "Two\nlines.", false)]
    [InlineData("{# '<|im_start|>system\\nNot a default.<|im_end|>' #}{{ '<|im_start|>user' }}", null, false)]
    [InlineData("{% if x %}<|im_start|>system\nRaw {{ y }}.<|im_end|>{% endif %}", null, true)]
    [InlineData("{{ '<|im_start|>system\\nBefore ' + x + '<|im_end|>' }}", null, true)]
    [InlineData("{# unfinished <|im_start|>system", null, true)]
    public void Only_what_is_surely_a_default_is_taken_for_one(string text, string? expected, bool unclear)
    {
        var template = new JinjaTemplate(text);
        Assert.Equal(expected, template.DefaultSystem);
        Assert.Equal(unclear, template.IsUnclear);
    }

    [Fact]
    public void A_default_of_one_word_does_not_become_a_role()
    {
        const string Text = @"{{ '<|im_start|>system\nassistant<|im_end|>\n' }}{% if role == 'assistant' %}{% endif %}";
        Assert.Equal(Text.Replace("system\\nassistant", "system\\nMine.", StringComparison.Ordinal), new JinjaTemplate(Text).WithDefaultSystem("Mine."));
    }

    [Theory]
    [InlineData("[1, {\"name\": 3}]")]
    [InlineData("[{\"name\": \"default\", \"template\": 5}]")]
    [InlineData("{\"a\": 1}")]
    [InlineData("7")]
    [InlineData("null")]
    [InlineData("\"\"")]
    public void What_is_no_template_is_left_alone_and_the_familys_counts(string template)
    {
        string config = $"{{\"chat_template\": {template}}}";
        Write(config);
        Assert.Equal(template is not "null", JinjaTemplate.Find(_directory.Path)?.Defect is not null);
        Assert.StartsWith("<|im_start|>system\nYou are Qwen", Render(ChatTemplate.Of(new DataConfig { Train = [] }, _directory.Path, "qwen2")), StringComparison.Ordinal);
        JinjaTemplate.SetDefaultSystem(_directory.Path, "Mine.");
        Assert.Equal(config, File.ReadAllText(_directory.File("tokenizer_config.json")));
    }

    [Fact]
    public void A_large_text_full_of_beginnings_is_read_at_once()
    {
        var watch = System.Diagnostics.Stopwatch.StartNew();
        _ = new JinjaTemplate(string.Concat(Enumerable.Repeat("<|im_start|>system\n", 100_000)));
        _ = new JinjaTemplate(string.Concat(Enumerable.Repeat("'<|im_start|>system\n\" {# ", 100_000)));
        foreach (string text in (string[])["{% if x %}", "{{ '", "{# ", "{% raw %}{%", "{{ {"])
        {
            _ = JinjaSyntax.Error(string.Concat(Enumerable.Repeat(text, 100_000)));
        }

        Assert.True(watch.Elapsed < TimeSpan.FromSeconds(5), $"{watch.Elapsed}");
    }

    [Fact]
    public void A_broken_file_is_named()
    {
        Write("{\"chat_template\": ");
        Assert.Contains("tokenizer_config.json", Assert.Throws<JobInputException>(() => JinjaTemplate.Find(_directory.Path)).Message, StringComparison.Ordinal);
    }

    private static string Render(ChatTemplate template) => string.Concat(template.Render(s_question).Select(segment => segment.Text));

    private void Write(string json) => File.WriteAllText(_directory.File("tokenizer_config.json"), json);
}
