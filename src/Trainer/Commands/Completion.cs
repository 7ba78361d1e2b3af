using System.CommandLine;

namespace Trainer.Cli.Commands;

/// <summary><c>trainer completion SHELL</c>: the shell asks the trainer itself, so that what it offers is always true.</summary>
internal static class Completion
{
    private const string Bash = """
        _trainer() {
            local IFS=$'\n' line="${COMP_LINE#* }"
            [ "$line" = "$COMP_LINE" ] && line=
            mapfile -t COMPREPLY < <(compgen -W "$("${COMP_WORDS[0]}" "[suggest:$((COMP_POINT - ${#COMP_LINE} + ${#line}))]" "$line" 2>/dev/null)" -- "${COMP_WORDS[COMP_CWORD]}")
        }
        complete -o default -F _trainer trainer ./trainer
        """;

    private const string Zsh = """
        #compdef trainer
        _trainer() {
            local line="${BUFFER#* }"
            [ "$line" = "$BUFFER" ] && line=
            local -a found=("${(@f)$("${words[1]}" "[suggest:$((CURSOR - ${#BUFFER} + ${#line}))]" "$line" 2>/dev/null)}")
            compadd -a found || _files
        }
        compdef _trainer trainer ./trainer
        """;

    private const string Fish = """
        complete -c trainer -a '(set -l line (string replace -r "^\S+ ?" "" -- (commandline -cp)); trainer "[suggest:"(string length -- "$line")"]" "$line" 2>/dev/null)'
        """;

    public static Command Create()
    {
        var shell = new Argument<string>("SHELL") { Description = "bash, zsh or fish." };
        shell.AcceptOnlyFromAmong("bash", "zsh", "fish");
        var command = new Command("completion", "Prints a script that completes commands, options and jobs: source <(trainer completion bash).") { shell };
        command.SetAction(options => Console.WriteLine(options.GetRequiredValue(shell) switch
        {
            "bash" => Bash,
            "zsh" => Zsh,
            _ => Fish,
        }));
        return command;
    }
}
