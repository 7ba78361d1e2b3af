using System.CommandLine;
using System.ComponentModel;
using System.Diagnostics;
using Trainer.Contracts;

namespace Trainer.Cli.Commands;

/// <summary><c>trainer dashboard</c>: a link that opens the dashboard in a browser, signed in as whoever runs the command.</summary>
internal static class Dashboard
{
    public static Command Create()
    {
        var port = new Option<int>("--port") { Description = "Of this machine, for the coordinator in the background. Default: the one of before, else 7410 or any that is free.", HelpName = "N" };
        var open = new Option<bool>("--open") { Description = "Opens the link in this desktop's browser." };
        var command = new Command("dashboard", "Prints a link to the dashboard that signs in once, within five minutes.") { port, open };
        command.SetAction(async (options, cancellationToken) =>
        {
            CoordinatorLocator locator = CoordinatorLocator.FromEnvironment();
            if (locator.IsRemote && options.GetValue(port) != 0)
            {
                throw new ConfigException("--port is for the coordinator of this machine; the one that TRAINER_COORDINATOR names shows its dashboard where it listens");
            }
            using CoordinatorClient client = await locator.ConnectAsync(cancellationToken);
            string address = locator.Address ?? (await client.OpenDashboardAsync(options.GetValue(port), cancellationToken)).Address;
            SignInCode code = await client.SignInCodeAsync(cancellationToken);
            string link = $"{address.TrimEnd('/')}/#code={code.Code}";
            Console.WriteLine(link);
            if (options.GetValue(open))
            {
                Open(link);
            }
            return ExitCode.Succeeded;
        });
        return command;
    }

    private static void Open(string link)
    {
        try
        {
            using Process? opened = Process.Start(new ProcessStartInfo("xdg-open", [link]) { UseShellExecute = false });
        }
        catch (Win32Exception)
        {
            Console.Error.WriteLine("there is no xdg-open on this machine; open the link in a browser");
        }
    }
}
