using Trainer.Contracts;

namespace Trainer.Worker.Data;

/// <summary>How conversations are rendered and what of them is trained.</summary>
public sealed record ChatOptions
{
    /// <summary>Trains on everything.</summary>
    public bool TrainOnPrompt { get; init; }

    /// <summary>Trains on the last assistant turn only.</summary>
    public bool MaskHistory { get; init; }

    /// <summary>System message of conversations that bring none; empty: they have none. Null: the template's own default.</summary>
    public string? System { get; init; }

    /// <summary>The default of the model's own template, where it is not the family's; empty when it has none.</summary>
    public string? ModelSystem { get; init; }

    /// <summary>
    /// Recognises special tokens that a message spells out, as Hugging Face does. False: they are ordinary text, so that a
    /// stranger's message cannot end its own turn.
    /// </summary>
    public bool SpecialTokensInContent { get; init; } = true;

    public static ChatOptions From(DataConfig data) =>
        new() { TrainOnPrompt = data.TrainOnPrompt, MaskHistory = data.MaskHistory, System = data.System };
}

/// <summary>
/// Renders conversations byte for byte as the family's published Jinja template does, and marks what is trained: of an
/// assistant turn everything after its header, through &lt;|im_end|&gt;. That includes the &lt;think&gt; block that Qwen3's
/// template writes even where the data has no thought, because a prompt does not contain it and the model must write it.
/// </summary>
public abstract class ChatTemplate
{
    protected const string EndOfTurn = "<|im_end|>\n";

    private readonly ChatOptions _options;

    private protected ChatTemplate(TemplateKind kind, ChatOptions options)
    {
        Kind = kind;
        _options = options;
    }

    public TemplateKind Kind { get; }

    /// <summary>See <see cref="ChatOptions.ModelSystem"/>.</summary>
    public string? ModelSystem => _options.ModelSystem;

    /// <summary>Of the system message.</summary>
    private string Said { get; init; } = "";

    /// <summary>Conversations that bring no system message have none, whatever the template's default is.</summary>
    protected bool IsSilent => _options.System is "";

    /// <summary>One line for the log: which template, and the <see cref="Warning"/>.</summary>
    public string Explanation => $"chat template: {NameOf(Kind)}{Said}{(Warning is null ? "" : $"; warning: {Warning}")}";

    /// <summary>What is odd about the model's own template, and what that means; null: nothing.</summary>
    public string? Warning { get; private init; }

    protected virtual bool HasTools => true;

    /// <param name="kind">Not <see cref="TemplateKind.Auto"/>: see <see cref="Resolve"/>.</param>
    /// <param name="options">Null: the defaults.</param>
    public static ChatTemplate Create(TemplateKind kind, ChatOptions? options = null) => Create(kind, options ?? new ChatOptions(), "", null);

    private static ChatTemplate Create(TemplateKind kind, ChatOptions options, string said, string? warning) => kind switch
    {
        TemplateKind.Qwen25 => new Qwen25Template(options) { Said = said, Warning = warning },
        TemplateKind.Qwen3 => new Qwen3Template(options) { Said = said, Warning = warning },
        TemplateKind.Chatml => new ChatmlTemplate(options) { Said = said, Warning = warning },
        _ => throw new ArgumentOutOfRangeException(nameof(kind), kind, "Resolve the kind by the model's family first."),
    };

    /// <summary>
    /// The job's template. With <see cref="TemplateKind.Auto"/> the family's, with the default system message of the model's own
    /// template, which goes with the trained model: Qwen1.5, Qwen2 and the base models of Qwen2.5 have another than Qwen2.5-Instruct.
    /// </summary>
    /// <param name="data">The job's data.</param>
    /// <param name="tokenizerDirectory">May bring the model's own template.</param>
    /// <param name="modelType">model_type of config.json.</param>
    /// <exception cref="JobInputException">tokenizer_config.json is malformed.</exception>
    public static ChatTemplate Of(DataConfig data, string tokenizerDirectory, string? modelType)
    {
        TemplateKind kind = Resolve(data.Template, modelType);
        JinjaTemplate? own = JinjaTemplate.Find(tokenizerDirectory);
        bool auto = data.Template == TemplateKind.Auto, follows = auto && own is { IsChatml: true } && own.HasThoughts == (kind == TemplateKind.Qwen3)
            && (own.DefaultSystem is null ? !own.IsUnclear : kind != TemplateKind.Qwen3);
        string? system = follows && kind != TemplateKind.Qwen3 ? own!.DefaultSystem ?? "" : auto && own is null && kind == TemplateKind.Chatml ? ChatmlTemplate.FirstQwenSystem : null;
        ChatOptions options = ChatOptions.From(data) with { ModelSystem = kind == TemplateKind.Qwen25 && system == Qwen25Template.DefaultSystem ? null : system };
        string said = options switch
        {
            { System: "" } => ", without a system message where conversations bring none (data.system"
                + $"{(own is null ? "; there is no chat template to export" : own.Defect is null ? "; the exported chat template writes none, too" : "")})",
            { System: { } text } => $", system message of conversations that bring none: {PythonJson.Write(text)} (data.system; {(own is null ? "there is no chat template to export" : own.DefaultSystem is null ? "the exported chat template does not write it" : "the exported chat template writes it, too")}{(own?.DefaultSystem is null ? ", so say it where the model is asked" : "")})",
            { ModelSystem: "" } => ", without a default system message, as the model's own template",
            { ModelSystem: { } text } => $", system message of conversations that bring none: {PythonJson.Write(text)}, as in the model's own {(own is null ? "code" : "template")}",
            _ => "",
        };
        string? warning = modelType == "qwen" && kind != TemplateKind.Chatml
            ? "this is not the first Qwen's own template, and its vocabulary has no tokens for thoughts and tools: set data.template to auto if its own serves"
            : own?.Defect is { } defect
            ? $"{own.Source}: {defect}; programs that take the template from the trained model will fail: correct it there"
            : !auto || own is null || follows ? null : $"the model's own chat template {Oddity(own, kind)}, "
            + "and will frame what the trained model sees elsewhere; set data.template if another fits better";
        return Create(kind, options, said, warning);
    }

    /// <summary>Auto by model_type of config.json: qwen3 and its kin have their own template, earlier families share one, the first knows no tools.</summary>
    public static TemplateKind Resolve(TemplateKind kind, string? modelType) =>
        kind != TemplateKind.Auto ? kind
        : modelType?.StartsWith("qwen3", StringComparison.Ordinal) == true ? TemplateKind.Qwen3
        : modelType == "qwen" ? TemplateKind.Chatml
        : TemplateKind.Qwen25;

    /// <exception cref="JobInputException">The template cannot express the conversation.</exception>
    public void Check(Conversation conversation)
    {
        if (conversation.Messages.Count == 0)
        {
            throw new JobInputException("the conversation has no messages; remove it or give it at least a user and an assistant turn");
        }

        string[] roles = HasTools ? ["system", "user", "assistant", "tool"] : ["system", "user", "assistant"];
        for (int i = 0; i < conversation.Messages.Count; i++)
        {
            if (!roles.Contains(conversation.Messages[i].Role))
            {
                throw new JobInputException($"message {i + 1} has the role \"{conversation.Messages[i].Role}\", which template "
                    + $"{NameOf(Kind)} does not know; use one of {string.Join(", ", roles)}");
            }
        }

        if (!HasTools && (conversation.Tools.Count > 0 || conversation.Messages.Any(message => message.ToolCalls.Count > 0)))
        {
            throw new JobInputException($"template {NameOf(Kind)} cannot express tools; use template qwen2.5 or qwen3, or take them out");
        }
    }

    /// <summary>The conversation for training; what belongs to a trained turn is marked.</summary>
    public IReadOnlyList<Segment> Render(Conversation conversation)
    {
        Check(conversation);
        conversation = WithSystem(conversation);
        var writer = new SegmentWriter(_options.SpecialTokensInContent) { Trained = _options.TrainOnPrompt };
        WriteSystem(writer, conversation);
        int lastAnswer = conversation.Messages.ToList().FindLastIndex(message => message.Role == "assistant");
        for (int i = 0; i < conversation.Messages.Count; i++)
        {
            bool trained = !_options.MaskHistory || i == lastAnswer;
            WriteTurn(writer, conversation.Messages, i, trained);
        }

        return writer.Segments;
    }

    /// <summary>The conversation for generation: ends where the assistant's answer begins.</summary>
    /// <param name="conversation">Ends with a user or tool turn.</param>
    /// <param name="thinking">False tells a model with thoughts to answer at once.</param>
    public IReadOnlyList<Segment> RenderPrompt(Conversation conversation, bool thinking = true)
    {
        var writer = new SegmentWriter(_options.SpecialTokensInContent);
        foreach (Segment segment in Render(conversation))
        {
            writer.Add(segment with { Trained = false });
        }

        writer.Frame("<|im_start|>assistant\n");
        WriteAnswerStart(writer, thinking);
        return writer.Segments;
    }

    /// <exception cref="JobInputException">The tokenizer lacks a token of the template, which it would spell as bytes.</exception>
    public TokenizedDocument Tokenize(Conversation conversation, Tokenizer tokenizer)
    {
        RequireFrame(tokenizer);
        return tokenizer.Encode(Render(conversation));
    }

    /// <inheritdoc cref="Tokenize"/>
    public int[] Prompt(Conversation conversation, Tokenizer tokenizer, bool thinking = true)
    {
        RequireFrame(tokenizer);
        return tokenizer.Encode(RenderPrompt(conversation, thinking)).Ids;
    }

    private static string Oddity(JinjaTemplate own, TemplateKind kind) =>
        !own.IsChatml ? "is not ChatML"
        : own.HasThoughts != (kind == TemplateKind.Qwen3) ? own.HasThoughts ? "has thoughts" : "has no thoughts"
        : own.DefaultSystem is { } system ? $"has a default system message ({PythonJson.Write(system)})"
        : "has a system turn that is not understood here";

    /// <summary>As a config writes it.</summary>
    private static string NameOf(TemplateKind kind) => kind == TemplateKind.Qwen25 ? "qwen2.5" : kind.ToString().ToLowerInvariant();

    private static void RequireFrame(Tokenizer tokenizer)
    {
        tokenizer.TokenId("<|im_start|>");
        tokenizer.TokenId("<|im_end|>");
    }

    /// <summary>The system turn with the tools, and with it the first message if that is a system message.</summary>
    private protected abstract void WriteSystem(SegmentWriter writer, Conversation conversation);

    private protected abstract void WriteAnswer(SegmentWriter writer, IReadOnlyList<Message> messages, int index);

    private protected virtual void WriteAnswerStart(SegmentWriter writer, bool thinking)
    {
    }

    private protected static void WriteTools(SegmentWriter writer, IReadOnlyList<string> tools)
    {
        writer.Frame("# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
            + "You are provided with function signatures within <tools></tools> XML tags:\n<tools>");
        foreach (string tool in tools)
        {
            writer.Frame("\n");
            writer.Content(tool);
        }

        writer.Frame("\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
            + "<tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n"
            + "</tool_call>" + EndOfTurn);
    }

    private protected static void WritePlainTurn(SegmentWriter writer, Message message)
    {
        writer.Frame($"<|im_start|>{message.Role}\n");
        writer.Content(message.Content);
        writer.Frame(EndOfTurn);
    }

    private protected static void WriteToolCall(SegmentWriter writer, string name, string arguments)
    {
        writer.Frame("<tool_call>\n{\"name\": \"");
        writer.Content(name);
        writer.Frame("\", \"arguments\": ");
        writer.Content(arguments);
        writer.Frame("}\n</tool_call>");
    }

    private void WriteTurn(SegmentWriter writer, IReadOnlyList<Message> messages, int index, bool trained)
    {
        switch (messages[index].Role)
        {
            case "assistant":
                writer.Frame("<|im_start|>assistant\n");
                writer.Trained |= trained;
                WriteAnswer(writer, messages, index);
                writer.Frame("<|im_end|>");
                writer.Trained = _options.TrainOnPrompt;
                writer.Frame("\n");
                break;
            case "tool":
                WriteToolResponse(writer, messages, index);
                break;
            case "system" when index == 0:
                break;
            default:
                WritePlainTurn(writer, messages[index]);
                break;
        }
    }

    /// <summary>Neighbouring responses share one user turn.</summary>
    private static void WriteToolResponse(SegmentWriter writer, IReadOnlyList<Message> messages, int index)
    {
        if (index == 0 || messages[index - 1].Role != "tool")
        {
            writer.Frame("<|im_start|>user");
        }

        writer.Frame("\n<tool_response>\n");
        writer.Content(messages[index].Content);
        writer.Frame("\n</tool_response>");
        if (index == messages.Count - 1 || messages[index + 1].Role != "tool")
        {
            writer.Frame(EndOfTurn);
        }
    }

    private Conversation WithSystem(Conversation conversation) =>
        _options.System is { Length: > 0 } system && conversation.Messages[0].Role != "system"
            ? conversation with { Messages = [new Message("system", system), .. conversation.Messages] }
            : conversation;
}
