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
    public void Of_several_templates_the_default_one_counts_and_a_file_of_its_own_before_all()
    {
        Write(JsonSerializer.Serialize(new { chat_template = new[] { new { name = "tool_use", template = Foreign }, new { name = "default", template = Helpful } } }));
        Assert.Equal("You are a helpful assistant.", JinjaTemplate.Find(_directory.Path)!.DefaultSystem);
        File.WriteAllText(_directory.File("chat_template.jinja"), NoDefault);
        Assert.Null(JinjaTemplate.Find(_directory.Path)!.DefaultSystem);
    }

    [Theory]
    [InlineData("Answer in French.")]
    [InlineData("It's \"quoted\" \\ and\nlong.")]
    public void A_default_system_message_of_the_job_becomes_that_of_the_exported_template(string system)
    {
        Write(JsonSerializer.Serialize(new { model_max_length = 7, chat_template = Qwen25 + Helpful }));
        File.WriteAllText(_directory.File("chat_template.jinja"), Helpful);
        JinjaTemplate.SetDefaultSystem(_directory.Path, system);
        string escaped = system.Replace("\\", "\\\\", StringComparison.Ordinal).Replace("'", "\\'", StringComparison.Ordinal).Replace("\"", "\\\"", StringComparison.Ordinal)
            .Replace("\n", "\\n", StringComparison.Ordinal);
        using var json = JsonDocument.Parse(File.ReadAllBytes(_directory.File("tokenizer_config.json")));
        Assert.Equal(Qwen25.Replace(Qwen25Template.DefaultSystem, escaped, StringComparison.Ordinal) + Helpful, json.RootElement.GetProperty("chat_template").GetString());
        Assert.Equal(7, json.RootElement.GetProperty("model_max_length").GetInt32());
        Assert.Equal(Helpful.Replace("You are a helpful assistant.", escaped, StringComparison.Ordinal), File.ReadAllText(_directory.File("chat_template.jinja")));

        Write(JsonSerializer.Serialize(new { chat_template = NoDefault }));
        string before = File.ReadAllText(_directory.File("tokenizer_config.json"));
        JinjaTemplate.SetDefaultSystem(_directory.Path, system);
        Assert.Equal(before, File.ReadAllText(_directory.File("tokenizer_config.json")));
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
