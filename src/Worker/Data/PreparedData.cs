using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Trainer.Contracts;

namespace Trainer.Worker.Data;

/// <summary>
/// The training and evaluation documents of a job, tokenised once into cache files and found again by what they were made of.
/// </summary>
public sealed class PreparedData : IDisposable
{
    /// <summary>Part of every fingerprint: raise it when the same input would give other tokens.</summary>
    private const int FormatVersion = 1;

    /// <summary>EWOULDBLOCK of flock.</summary>
    private const int Locked = 11;

    private PreparedData(DataFingerprint fingerprint, PreparedDataset train, PreparedDataset? eval)
    {
        TrainedOn = fingerprint;
        Train = train;
        Eval = eval;
    }

    /// <summary>What <see cref="Train"/> was made of.</summary>
    public DataFingerprint TrainedOn { get; }

    public PreparedDataset Train { get; }

    /// <summary>data.eval, or the held-out share of data.train; null with neither.</summary>
    public PreparedDataset? Eval { get; }

    /// <summary>Opens the cache files, building those that are missing or were made of other input. Safe in several processes.</summary>
    /// <param name="data">The job's data.</param>
    /// <param name="seed">Chooses the held-out documents.</param>
    /// <param name="tokenizer">The model's tokenizer.</param>
    /// <param name="template">With the options of <paramref name="data"/>: see <see cref="ChatOptions.From"/>.</param>
    /// <param name="cacheDirectory">Is created if need be; any number of jobs may share it.</param>
    /// <exception cref="JobInputException">A source is missing or broken, or nothing would be trained or evaluated.</exception>
    public static PreparedData Prepare(DataConfig data, int seed, Tokenizer tokenizer, ChatTemplate template, string cacheDirectory)
    {
        Directory.CreateDirectory(cacheDirectory);
        using FileStream turn = TakeTurn(Path.Combine(cacheDirectory, ".lock"));
        var documents = new DocumentTokenizer(tokenizer, template);
        HeldOutSplit split = Split(data, seed);
        DataFingerprint made = Fingerprint(data, data.Train, split, tokenizer, template);
        string fingerprint = made.Hash;
        string trainPath = PathOf(cacheDirectory, "train", fingerprint);
        string heldOutPath = PathOf(cacheDirectory, "held-out", fingerprint);

        PreparedDataset? train = PreparedDataset.TryOpen(trainPath, fingerprint);
        PreparedDataset? eval = split.Fraction > 0 ? PreparedDataset.TryOpen(heldOutPath, fingerprint) : null;
        if (train is null || (split.Fraction > 0 && eval is null))
        {
            train?.Dispose();
            eval?.Dispose();
            (train, eval) = Build(data, data.Train, split, documents, fingerprint, trainPath, heldOutPath);
        }

        try
        {
            return new PreparedData(made, train, data.Eval.Count > 0 ? PrepareEval() : eval);
        }
        catch
        {
            train.Dispose();
            throw;
        }

        PreparedDataset PrepareEval()
        {
            var none = new HeldOutSplit(seed, 0);
            string evalFingerprint = Fingerprint(data, data.Eval, none, tokenizer, template).Hash;
            string evalPath = PathOf(cacheDirectory, "eval", evalFingerprint);
            return PreparedDataset.TryOpen(evalPath, evalFingerprint)
                ?? Build(data, data.Eval, none, documents, evalFingerprint, evalPath, heldOutPath).Main;
        }
    }

    /// <summary>What <see cref="TrainedOn"/> is or will be; reads the sources, tokenises nothing.</summary>
    public static DataFingerprint TrainFingerprint(DataConfig data, int seed, Tokenizer tokenizer, ChatTemplate template) =>
        Fingerprint(data, data.Train, Split(data, seed), tokenizer, template);

    public void Dispose()
    {
        Train.Dispose();
        Eval?.Dispose();
    }

    internal static JobInputException NothingTrained(DataCertificate certificate, IReadOnlyList<DatasetConfig> datasets, int maxLength)
    {
        string files = string.Join(", ", datasets.Select(dataset => dataset.Path));
        string reason = certificate.Dropped > 0
            ? $"{certificate.Dropped} are longer than max_length {maxLength} and {certificate.WithoutTrainedTokens} hold"
            : "they hold";
        return new JobInputException($"{files}: no token of the {certificate.Documents} documents would be trained: {reason} no text "
            + $"of an assistant within the first {maxLength} tokens; add assistant turns, raise max_length, or set train_on_prompt: true");
    }

    internal static JobInputException NothingHeldOut(double fraction, long documents) => new(FormattableString.Invariant(
        $"eval_fraction {fraction} holds out no usable document of {documents}; raise it, or name a dataset as data.eval"));

    private static (PreparedDataset Main, PreparedDataset? HeldOut) Build(
        DataConfig data, IReadOnlyList<DatasetConfig> datasets, HeldOutSplit split, DocumentTokenizer tokenizer,
        string fingerprint, string mainPath, string heldOutPath)
    {
        using var main = new PreparedDatasetWriter(mainPath, fingerprint, data.MaxLength, data.Overlong);
        using var heldOut = split.Fraction > 0
            ? new PreparedDatasetWriter(heldOutPath, fingerprint, data.MaxLength, data.Overlong)
            : null;
        long index = 0;
        foreach (Document document in datasets.SelectMany(dataset => DatasetReader.Read(dataset)))
        {
            PreparedDatasetWriter target = heldOut is not null && split.Contains(index) ? heldOut : main;
            target.Add(document, tokenizer.Tokenize(document));
            index++;
        }

        if (main.Certify() is { Kept: 0 } nothing)
        {
            throw NothingTrained(nothing, datasets, data.MaxLength);
        }

        if (heldOut?.Certify().Kept == 0)
        {
            throw NothingHeldOut(data.EvalFraction, index);
        }

        heldOut?.Commit();
        main.Commit();
        return (Open(mainPath, fingerprint), heldOut is null ? null : Open(heldOutPath, fingerprint));
    }

    private static PreparedDataset Open(string path, string fingerprint) => PreparedDataset.TryOpen(path, fingerprint)
        ?? throw new IOException($"{path}: was written but cannot be read back; check the disk.");

    /// <summary>
    /// Lets one process at a time build, so that those that share a folder build once: the next finds the files. The lock
    /// dies with its process; where locks don't work, the work is only done twice.
    /// </summary>
    private static FileStream TakeTurn(string path)
    {
        while (true)
        {
            try
            {
                return new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None, 1, FileOptions.DeleteOnClose);
            }
            catch (IOException e) when (e.HResult == Locked)
            {
                Thread.Sleep(50);
            }
        }
    }

    private static HeldOutSplit Split(DataConfig data, int seed) => new(seed, data.Eval.Count > 0 ? 0 : data.EvalFraction);

    private static string PathOf(string directory, string name, string fingerprint) =>
        Path.Combine(directory, $"{name}-{fingerprint[..16]}.tokens");

    private static DataFingerprint Fingerprint(
        DataConfig data, IReadOnlyList<DatasetConfig> datasets, HeldOutSplit split, Tokenizer tokenizer, ChatTemplate template)
    {
        var inputs = new Dictionary<string, string>();
        var text = new StringBuilder();
        void Line(string name, object? value) =>
            text.Append(name).Append('=').Append(PythonJson.Write(Convert.ToString(value, CultureInfo.InvariantCulture) ?? "")).Append('\n');

        Line("format", FormatVersion);
        Line("tokenizer", tokenizer.Fingerprint);
        Line("end_of_text", tokenizer.EndOfText);
        Line("template", template.Kind);
        inputs["the tokenizer"] = tokenizer.Fingerprint;
        if (template.ModelSystem is { } system && data.System is null)
        {
            Line("model_system", system);
            inputs["the default system message of the model's chat template"] = system;
        }

        Line("train_on_prompt", data.TrainOnPrompt);
        Line("mask_history", data.MaskHistory);
        Line("has_system", data.System is not null);
        Line("system", data.System);
        if (data.System is "")
        {
            // Earlier builds wrote an empty system message for it.
            Line("silent", true);
        }

        Line("max_length", data.MaxLength);
        Line("overlong", data.Overlong);
        Line("eval_fraction", split.Fraction);
        Line("seed", split.Fraction > 0 ? split.Seed : 0);
        for (int i = 0; i < datasets.Count; i++)
        {
            DatasetConfig dataset = datasets[i];
            string hash = HashOf(dataset.Path);
            inputs[$"the file of data.train[{i.ToString(CultureInfo.InvariantCulture)}]"] = hash;
            Line("source", hash);
            Line("source_format", dataset.Format);
            Line("limit", dataset.Limit);
            foreach ((string ours, string theirs) in dataset.Mapping.OrderBy(entry => entry.Key, StringComparer.Ordinal))
            {
                Line("map " + ours, theirs);
            }
        }

        return new DataFingerprint(Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(text.ToString()))), inputs);
    }

    private static string HashOf(string path)
    {
        // Opened by the reader first, so that a missing file is reported in one way.
        JsonlReader.Open(path).Dispose();
        using FileStream file = File.OpenRead(path);
        return Convert.ToHexStringLower(SHA256.HashData(file));
    }
}
