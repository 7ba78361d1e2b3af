namespace Trainer.Worker.Data;

/// <summary>Whether a Jinja template can be parsed at all, as far as tags and blocks tell.</summary>
internal static class JinjaSyntax
{
    /// <summary>Tags that begin a block which "end" and their name end. "set" begins one only where it assigns nothing.</summary>
    private static readonly string[] s_blocks = ["if", "for", "macro", "call", "filter", "set", "block", "with", "autoescape", "generation"];

    /// <summary>The rest, those of Jinja's own extensions among them.</summary>
    private static readonly string[] s_others = ["set", "raw", "include", "import", "from", "extends", "do", "break", "continue", "debug", "trans", "endtrans", "pluralize"];

    /// <summary>What is wrong first, with its line; null: nothing that is seen here.</summary>
    public static string? Error(string text)
    {
        var open = new Stack<(string Name, int At, bool HasElse)>();
        for (int at = Next(text, 0); at >= 0;)
        {
            char kind = text[at + 1];
            int end = kind == '#' ? text.IndexOf("#}", at + 2, StringComparison.Ordinal) : EndOfTag(text, at + 2, kind == '{' ? '}' : '%');
            if (end < 0)
            {
                return $"line {Line(text, at)}: {text.AsSpan(at, 2)} is never closed{(kind == '#' ? "" : ", or a bracket or quote in it is not")}";
            }

            if (kind == '{' && IsBlank(text.AsSpan(at + 2, end - at - 2)))
            {
                return $"line {Line(text, at)}: {{{{ }}}} has nothing in it";
            }

            if (kind == '%')
            {
                string tag = text[(at + 2)..end].Trim('-', '+', ' ', '\t', '\r', '\n');
                if (Take(tag, at, open) is { } error)
                {
                    return $"line {Line(text, at)}: {error}";
                }

                if (tag == "raw" && (end = EndOfRaw(text, end)) < 0)
                {
                    return $"line {Line(text, at)}: {{% raw %}} is never closed";
                }
            }

            at = Next(text, end + 2);
        }

        return open.TryPeek(out (string Name, int At, bool) left) ? $"line {Line(text, left.At)}: {{% {left.Name} %}} is never closed" : null;
    }

    private static string? Take(string tag, int at, Stack<(string Name, int At, bool HasElse)> open)
    {
        string name = new([.. tag.TakeWhile(letter => char.IsAsciiLetter(letter) || letter == '_')]);
        string? top = open.TryPeek(out (string Name, int At, bool HasElse) last) ? last.Name : null;
        if (name is "elif" or "else")
        {
            if (last.HasElse || !(top == "if" || (top == "for" && name == "else")))
            {
                return $"{{% {name} %}} {(last.HasElse ? "after {% else %}" : "outside of an if")}";
            }

            open.Pop();
            open.Push(last with { HasElse = name == "else" });
        }
        else if (name == "endraw")
        {
            return "{% endraw %} closes nothing";
        }
        else if (name.StartsWith("end", StringComparison.Ordinal) && s_blocks.Contains(name[3..]))
        {
            if (top != name[3..])
            {
                return top is null ? $"{{% {name} %}} closes nothing" : $"{{% {name} %}} where {{% {top} %}} is to be closed";
            }

            open.Pop();
        }
        else if (s_blocks.Contains(name) && !(name == "set" && tag.Split('|')[0].Contains('=', StringComparison.Ordinal)))
        {
            open.Push((name, at, false));
        }
        else if (!s_others.Contains(name))
        {
            return $"there is no tag {{% {(name.Length == 0 ? tag : name)} %}}";
        }

        return null;
    }

    private static bool IsBlank(ReadOnlySpan<char> inside) => inside.Trim("-+ \t\r\n").IsEmpty;

    private static int Next(string text, int from)
    {
        for (int at = text.IndexOf('{', from); at >= 0 && at + 1 < text.Length; at = text.IndexOf('{', at + 1))
        {
            if (text[at + 1] is '{' or '%' or '#')
            {
                return at;
            }
        }

        return -1;
    }

    /// <summary>Where "}}" or "%}" ends a tag: outside of literals and of brackets.</summary>
    private static int EndOfTag(string text, int from, char mark)
    {
        int depth = 0;
        for (int i = from; i < text.Length; i++)
        {
            if (depth == 0 && text[i] == mark && i + 1 < text.Length && text[i + 1] == '}')
            {
                return i;
            }

            switch (text[i])
            {
                case '(' or '[' or '{':
                    depth++;
                    break;
                case ')' or ']' or '}':
                    depth--;
                    break;
                case '\'' or '"':
                    char quote = text[i];
                    for (i++; i < text.Length && text[i] != quote; i++)
                    {
                        i += text[i] == '\\' ? 1 : 0;
                    }

                    break;
            }

            if (depth < 0)
            {
                return -1;
            }
        }

        return -1;
    }

    /// <summary>Where "%}" ends the tag that ends a raw block.</summary>
    private static int EndOfRaw(string text, int from)
    {
        for (int at = text.IndexOf("{%", from, StringComparison.Ordinal); at >= 0; at = text.IndexOf("{%", at + 2, StringComparison.Ordinal))
        {
            int end = text.IndexOf("%}", at + 2, StringComparison.Ordinal);
            if (end < 0)
            {
                break;
            }

            if (text[(at + 2)..end].Trim('-', '+', ' ', '\t', '\r', '\n') == "endraw")
            {
                return end;
            }
        }

        return -1;
    }

    private static int Line(string text, int at) => 1 + text.AsSpan(0, at).Count('\n');
}
