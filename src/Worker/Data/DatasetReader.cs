using Trainer.Contracts;

namespace Trainer.Worker.Data;

/// <summary>The documents of one data set in the order of the file, one at a time.</summary>
public static class DatasetReader
{
    /// <param name="dataset">What to read and how.</param>
    /// <param name="onProblem">Takes the problem of a line that cannot be read, which is then left out; null: throw at the first.</param>
    /// <exception cref="JobInputException">The file is missing, damaged, or without documents.</exception>
    public static IEnumerable<Document> Read(DatasetConfig dataset, Action<JobInputException>? onProblem = null)
    {
        using var lines = JsonlReader.Open(dataset.Path);
        var parser = new DocumentParser(dataset);
        int count = 0;
        while (count < (dataset.Limit ?? int.MaxValue) && lines.MoveNext())
        {
            count++;
            if (Parse(parser, lines, dataset.Path, onProblem) is { } document)
            {
                yield return document;
            }
        }

        if (count == 0)
        {
            throw new JobInputException(dataset.Limit is <= 0
                ? $"{dataset.Path}: limit {dataset.Limit} leaves no documents; raise it"
                : $"{dataset.Path}: the dataset is empty; write one JSON object per line");
        }
    }

    private static Document? Parse(DocumentParser parser, JsonlReader lines, string path, Action<JobInputException>? onProblem)
    {
        try
        {
            return parser.Parse(lines.Line, lines.LineNumber);
        }
        catch (JobInputException e)
        {
            JobInputException placed = e.At(path, lines.LineNumber);
            if (onProblem is null)
            {
                throw placed;
            }

            onProblem(placed);
            return null;
        }
    }
}
