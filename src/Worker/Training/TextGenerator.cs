using Trainer.Worker.Model;
using TorchSharp;
using static TorchSharp.torch;

namespace Trainer.Worker.Training;

/// <summary>Continues a prompt token by token with a key/value cache.</summary>
public static class TextGenerator
{
    /// <param name="temperature">0 takes the likeliest token each time.</param>
    /// <param name="endTokens">Generation stops after one of these.</param>
    /// <param name="seed">Decides the draws when the temperature is above 0.</param>
    /// <returns>The new tokens, an end token included.</returns>
    public static IEnumerable<int> Continue(
        QwenModel model, IReadOnlyList<int> prompt, int maxNewTokens, double temperature, IReadOnlyCollection<int> endTokens, int seed)
    {
        using var cache = new GenerationCache(model.Config, prompt.Count, model.Placement.Device);
        var random = new Random(seed);
        int[] next = [.. prompt];
        for (int i = 0; i < maxNewTokens; i++)
        {
            int token;
            using (Tensor logits = model.Continue(next, cache))
            {
                token = temperature > 0 ? Draw(logits, temperature, random) : (int)logits.argmax().ToInt64();
            }

            yield return token;
            if (endTokens.Contains(token))
            {
                yield break;
            }

            next = [token];
        }
    }

    private static int Draw(Tensor logits, double temperature, Random random)
    {
        using DisposeScope scope = NewDisposeScope();
        float[] probabilities = (logits / temperature).softmax(-1).cpu().data<float>().ToArray();
        double left = random.NextDouble();
        for (int token = 0; token < probabilities.Length; token++)
        {
            left -= probabilities[token];
            if (left < 0)
            {
                return token;
            }
        }

        return Array.IndexOf(probabilities, probabilities.Max());
    }
}
