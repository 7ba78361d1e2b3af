using System.Net;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>Where a coordinator listens besides its Unix socket, and whom it lets in there.</summary>
public sealed record CoordinatorEndpoints
{
    public static CoordinatorEndpoints SocketOnly { get; } = new() { Addresses = [], Access = Access.Nobody };

    public required IReadOnlyList<Uri> Addresses { get; init; }

    public required Access Access { get; init; }

    /// <summary>Of https addresses.</summary>
    public X509Certificate2? Certificate { get; init; }

    /// <param name="listen">Such as https://0.0.0.0:5443 or http://127.0.0.1:5080.</param>
    /// <exception cref="ConfigException">An address, file or combination is wrong.</exception>
    public static CoordinatorEndpoints Create(IReadOnlyList<string> listen, string? tokens, string? certificate, string? key)
    {
        Uri[] addresses = [.. listen.Select(Parse)];
        if (addresses.Length > 0 && tokens is null)
        {
            throw new ConfigException("--listen needs --tokens FILE: \"trainer token --role admin --file FILE\" makes one");
        }
        if (addresses.Any(address => address.Scheme == Uri.UriSchemeHttps) != (certificate is not null))
        {
            throw new ConfigException("https addresses need --certificate FILE (PEM, with --key FILE), and http ones must not have it");
        }
        try
        {
            return new CoordinatorEndpoints
            {
                Addresses = addresses,
                Access = tokens is null ? Access.Nobody : Access.Load(tokens),
                Certificate = certificate is null ? null : X509Certificate2.CreateFromPemFile(certificate, key),
            };
        }
        catch (Exception error) when (error is CryptographicException or IOException)
        {
            throw new ConfigException($"{certificate}: {error.Message}; PEM files of the certificate and its key are expected");
        }
    }

    private static Uri Parse(string address) =>
        Uri.TryCreate(address, UriKind.Absolute, out Uri? uri) && (uri.Scheme == Uri.UriSchemeHttp || uri.Scheme == Uri.UriSchemeHttps)
            && (uri.Host == "localhost" || IPAddress.TryParse(uri.Host.Trim('[', ']'), out _)) && uri.Port > 0 && uri.PathAndQuery == "/"
            ? uri
            : throw new ConfigException($"--listen {address}: an address such as https://0.0.0.0:5443 is expected, without a path");
}
