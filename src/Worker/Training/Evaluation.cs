using Trainer.Worker.Data;
using Trainer.Worker.Model;
using TorchSharp;
using static TorchSharp.torch;

namespace Trainer.Worker.Training;

/// <summary>Mean loss over held-out documents; logits never exist for more than a chunk of tokens.</summary>
public static class Evaluation
{
    /// <param name="maxDocuments">Null: all.</param>
    /// <param name="progress">Called after each batch.</param>
    public static double Run(QwenModel model, PreparedDataset data, int batchTokens, int? maxDocuments, Action progress)
    {
        double sum = 0;
        long trained = 0;
        using var _ = no_grad();
        foreach (PackedBatch batch in Batches(data, batchTokens, Math.Min(data.Count, maxDocuments ?? int.MaxValue)))
        {
            using DisposeScope scope = NewDisposeScope();
            using ModelInput input = ModelInput.From(batch, model.Placement.Device);
            sum += model.Loss(input, 1).ToDouble();
            trained += batch.TrainedTokens;
            progress();
        }

        return sum / trained;
    }

    private static IEnumerable<PackedBatch> Batches(PreparedDataset data, int batchTokens, int documents)
    {
        var batch = new List<int>();
        int tokens = 0;
        for (int document = 0; document < documents; document++)
        {
            if (batch.Count > 0 && tokens + data.Length(document) > batchTokens)
            {
                yield return Packer.Pack(data, batch);
                batch = [];
                tokens = 0;
            }

            batch.Add(document);
            tokens += data.Length(document);
        }

        yield return Packer.Pack(data, batch);
    }
}
