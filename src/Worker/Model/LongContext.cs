namespace Trainer.Worker.Model;

/// <summary>
/// How the first Qwen generates beyond the length that it was trained at; training knows nothing of it. Source: modeling_qwen.py of its
/// snapshots (get_ntk_alpha, logn_tensor).
/// </summary>
/// <param name="TrainedLength">Tokens: seq_length of config.json.</param>
/// <param name="ScalesBase">Dynamic NTK: longer prompts turn more slowly.</param>
/// <param name="ScalesQueries">Attention by log n: queries beyond the length grow with their position.</param>
public sealed record LongContext(int TrainedLength, bool ScalesBase, bool ScalesQueries)
{
    /// <summary>The rotary base of a whole generation, which its prompt decides.</summary>
    public double Theta(double theta, int headDim, int promptTokens)
    {
        double alpha = ScalesBase ? Math.Pow(2, Math.Ceiling(Math.Log2((double)promptTokens / TrainedLength) + 1)) - 1 : 1;
        return theta * Math.Pow(Math.Max(alpha, 1), headDim / (headDim - 2.0));
    }

    /// <summary>The factor of the queries at positions from <paramref name="position"/> on; null: 1 for all.</summary>
    public float[]? QueryScale(int position, int tokens)
    {
        if (!ScalesQueries || position + tokens <= TrainedLength)
        {
            return null;
        }

        return [.. Enumerable.Range(position + 1, tokens).Select(n => n > TrainedLength ? (float)(Math.Log(n) / Math.Log(TrainedLength)) : 1f)];
    }
}
