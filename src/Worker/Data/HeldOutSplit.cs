namespace Trainer.Worker.Data;

/// <summary>
/// Which documents are held out for evaluation: exactly one, chosen by the seed, in every run of 1 / fraction documents. A
/// pure function of (seed, document index).
/// </summary>
public readonly record struct HeldOutSplit(int Seed, double Fraction)
{
    public bool Contains(long document)
    {
        if (Fraction <= 0)
        {
            return false;
        }

        long run = RunOf(document);
        long first = FirstOf(run);
        long size = FirstOf(run + 1) - first;
        ulong chosen = SampleOrder.Mix((ulong)Seed ^ SampleOrder.Mix(~(ulong)run)) % (ulong)size;
        return document - first == (long)chosen;
    }

    private long RunOf(long document) => (long)Math.Floor(document * Fraction);

    private long FirstOf(long run)
    {
        long first = (long)Math.Ceiling(run / Fraction);
        while (first > 0 && RunOf(first - 1) >= run)
        {
            first--;
        }

        while (RunOf(first) < run)
        {
            first++;
        }

        return first;
    }
}
