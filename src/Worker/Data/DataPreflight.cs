using System.Text.Json;
using Trainer.Contracts;

namespace Trainer.Worker.Data;

/// <summary>
/// Reads all data of a job before anything is queued, so that line 40,000 is reported in seconds and not after an hour of
/// training. Tokenises only until a token to train was found (all, when a document that is too long is an error).
/// </summary>
public static class DataPreflight
{
    /// <param name="config">The job.</param>
    /// <param name="loaded">Its tokenizer, when it is loaded already.</param>
    /// <returns>Every problem as one sentence with file, line and cure, at most 20; empty when the data can be trained on.</returns>
    public static IReadOnlyList<string> Check(JobConfig config, Tokenizer? loaded = null)
    {
        var problems = new ProblemList();
        DocumentTokenizer? tokenizer = null;
        Attempt(problems, () => tokenizer = Prepare(config, loaded));
        var split = new HeldOutSplit(config.Seed, config.Data.EvalFraction);
        int documents = CheckAll(config.Data, config.Data.Train, tokenizer, split, problems);
        if (config.Data.Eval.Count > 0)
        {
            CheckAll(config.Data, config.Data.Eval, tokenizer, default, problems);
        }
        else if (split.Fraction > 0 && documents > 0 && !Enumerable.Range(0, documents).Any(i => split.Contains(i)))
        {
            problems.Add(PreparedData.NothingHeldOut(split.Fraction, documents).Message);
        }

        return problems.Sentences;
    }

    /// <summary>model_type of the job's model, from config.json.</summary>
    /// <exception cref="JobInputException">The file is missing or broken.</exception>
    public static string? ModelType(ModelConfig model)
    {
        string path = model.Config ?? Path.Combine(model.Path ?? "", "config.json");
        try
        {
            using var json = JsonDocument.Parse(File.ReadAllText(path));
            return json.RootElement.ValueKind == JsonValueKind.Object
                && json.RootElement.TryGetProperty("model_type", out JsonElement type) ? type.ToString() : null;
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException or UnauthorizedAccessException)
        {
            throw new JobInputException($"{path}: cannot be read; correct model.path or model.config", e);
        }
        catch (JsonException e)
        {
            throw JobInputException.MalformedJson(path, e);
        }
    }

    private static DocumentTokenizer Prepare(JobConfig config, Tokenizer? loaded)
    {
        string directory = config.Model.Tokenizer ?? config.Model.Path
            ?? throw new JobInputException("the job names no tokenizer; set model.tokenizer to a folder that holds tokenizer.json or qwen.tiktoken");
        string? modelType = config.Data.Template == TemplateKind.Auto ? ModelType(config.Model) : null;
        return new DocumentTokenizer(loaded ?? Tokenizer.Load(directory), ChatTemplate.Of(config.Data, directory, modelType));
    }

    /// <summary>Documents that could be read.</summary>
    private static int CheckAll(
        DataConfig data, IReadOnlyList<DatasetConfig> datasets, DocumentTokenizer? tokenizer, HeldOutSplit split, ProblemList problems)
    {
        int before = problems.Count;
        int documents = 0;
        int dropped = 0;
        int held = 0;
        bool trained = false;
        foreach (DatasetConfig dataset in datasets)
        {
            Attempt(problems, () =>
            {
                foreach (Document document in DatasetReader.Read(dataset, problem => problems.Add(problem.Message)))
                {
                    bool isHeld = split.Contains(documents++);
                    held += isHeld ? 1 : 0;
                    Attempt(problems, () => CheckDocument(document, isHeld));
                }
            });
        }

        if (held > 0 && held == documents && problems.Count == before)
        {
            problems.Add(FormattableString.Invariant($"data.eval_fraction: {split.Fraction} holds out all {documents} documents and leaves none to train on; lower it, or give data.eval"));
        }
        else if (!trained && documents > 0 && tokenizer is not null && problems.Count == before)
        {
            var certificate = new DataCertificate
            {
                Fingerprint = "", Documents = documents, Dropped = dropped, WithoutTrainedTokens = documents - dropped,
            };
            problems.Add(PreparedData.NothingTrained(certificate, datasets, data.MaxLength).Message);
        }

        return documents;

        void CheckDocument(Document document, bool isHeld)
        {
            if (tokenizer is null || (isHeld && data.Overlong != OverlongPolicy.Error) || (trained && data.Overlong != OverlongPolicy.Error))
            {
                tokenizer?.Check(document);
                return;
            }

            TokenizedDocument tokens = tokenizer.Tokenize(document);
            bool overlong = tokens.Ids.Length > data.MaxLength;
            if (overlong && data.Overlong == OverlongPolicy.Error)
            {
                throw PreparedDatasetWriter.Overlong(document, tokens.Ids.Length, data.MaxLength);
            }

            dropped += overlong && data.Overlong == OverlongPolicy.Drop ? 1 : 0;
            trained |= !(overlong && data.Overlong == OverlongPolicy.Drop) && tokens.Truncate(data.MaxLength).TrainedTokens > 0;
        }
    }

    private static void Attempt(ProblemList problems, Action action)
    {
        try
        {
            action();
        }
        catch (JobInputException e)
        {
            problems.Add(e.Message);
        }
    }

    /// <summary>Keeps the first and counts the rest: a file may be wrong in every line.</summary>
    private sealed class ProblemList
    {
        private const int Most = 20;

        private readonly List<string> _first = [];

        public int Count { get; private set; }

        public IReadOnlyList<string> Sentences => Count <= Most
            ? _first
            : [.. _first.Take(Most - 1), $"and {Count - Most + 1} more problems; repair these first"];

        public void Add(string sentence)
        {
            Count++;
            if (_first.Count < Most)
            {
                _first.Add(sentence);
            }
        }
    }
}
