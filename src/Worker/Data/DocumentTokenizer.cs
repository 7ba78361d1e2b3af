namespace Trainer.Worker.Data;

/// <summary>Conversations through the chat template; plain text as it stands, ended by the end-of-text token, all trained.</summary>
public sealed class DocumentTokenizer(Tokenizer tokenizer, ChatTemplate template)
{
    /// <exception cref="JobInputException">The template cannot express the document; file and line are named.</exception>
    public void Check(Document document) => WithPlace(document, () =>
    {
        if (document.Conversation is { } conversation)
        {
            template.Check(conversation);
        }

        return true;
    });

    /// <exception cref="JobInputException">The template cannot express the document; file and line are named.</exception>
    public TokenizedDocument Tokenize(Document document) => WithPlace(document, () =>
        document.Conversation is { } conversation ? template.Tokenize(conversation, tokenizer) : TokenizeText(document.Text!));

    private TokenizedDocument TokenizeText(string text)
    {
        int end = tokenizer.EndOfText ?? throw new JobInputException(
            "the tokenizer has no end-of-text token; name one as eos_token in its tokenizer_config.json");
        int[] ids = [.. tokenizer.Encode(text), end];
        return new TokenizedDocument(ids, [.. Enumerable.Repeat(true, ids.Length)]);
    }

    private static T WithPlace<T>(Document document, Func<T> action)
    {
        try
        {
            return action();
        }
        catch (JobInputException e)
        {
            throw e.At(document.File, document.Line);
        }
    }
}
