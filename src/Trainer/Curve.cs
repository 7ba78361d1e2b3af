using System.Globalization;
using System.Text;

namespace Trainer.Cli;

/// <summary>
/// A curve in letters: each is a braille pattern of two by four dots. Every column shows the least and the greatest of its points,
/// so that no spike is lost however many there are.
/// </summary>
/// <param name="points">By step; what is not finite is a gap.</param>
/// <param name="restarts">Steps with which another attempt began.</param>
internal sealed class Curve(string name, IReadOnlyList<(long Step, double Value)> points, IReadOnlyList<long> restarts)
{
    private const char Empty = '\u2800';
    private const char Mark = '┊';
    private const int LabelWidth = 10;

    /// <summary>Bits of the dots of a braille pattern, from the top down: the left column, then the right one.</summary>
    private static readonly int[] s_dots = [0x01, 0x02, 0x04, 0x40, 0x08, 0x10, 0x20, 0x80];

    /// <param name="width">In letters, with the labels.</param>
    /// <param name="height">In lines, without title and steps.</param>
    /// <param name="paint">Puts a style ("curve" or "mark") around text; the text is printed as it is.</param>
    public IEnumerable<string> Lines(int width, int height, Func<string, string, string> paint)
    {
        (long Step, double Value)[] known = [.. points.Where(point => double.IsFinite(point.Value))];
        if (known.Length == 0)
        {
            yield return $"{name}: nothing yet";
            yield break;
        }
        int columns = Math.Max(4, width - LabelWidth - 1);
        double low = known.Min(point => point.Value), high = known.Max(point => point.Value);
        (long Step, double Value) best = known.MinBy(point => point.Value);
        yield return $"{name}  {Number(known[0].Value)} -> {Number(known[^1].Value)}  (least {Number(best.Value)} at step {best.Step}, greatest {Number(high)})";
        long first = known[0].Step, last = known[^1].Step;
        int[,] dots = Draw(known, columns * 2, height * 4, low, high, step => Column(step, columns * 2));
        var marks = restarts.Where(step => step > first && step <= last).Select(step => Column(step, columns * 2) / 2).ToHashSet();
        for (int row = 0; row < height; row++)
        {
            string label = row == 0 ? Number(high) : row == height - 1 ? Number(low) : "";
            yield return $"{label,LabelWidth} {Row(dots, row, columns, marks, paint)}";
        }
        string steps = $"step {last}";
        yield return new string(' ', LabelWidth + 1) + (columns > steps.Length + $"{first}".Length ? $"{first}".PadRight(columns - steps.Length) + steps : $"{last}".PadLeft(columns));

        int Column(long step, int count) => last == first ? 0 : (int)Math.Round((double)(step - first) / (last - first) * (count - 1));
    }

    /// <summary>Which dots are set: lines between the extremes of neighbouring columns.</summary>
    private static int[,] Draw((long Step, double Value)[] known, int columns, int rows, double low, double high, Func<long, int> column)
    {
        int[,] dots = new int[rows, columns];
        (int X, int Y)? before = null;
        foreach ((long step, double value) in known)
        {
            int x = column(step), y = high > low ? (int)Math.Round((high - value) / (high - low) * (rows - 1)) : rows / 2;
            (int fromX, int fromY) = before ?? (x, y);
            int length = Math.Max(1, Math.Max(x - fromX, Math.Abs(y - fromY)));
            for (int i = 0; i <= length; i++)
            {
                dots[fromY + (int)Math.Round((double)(y - fromY) * i / length), fromX + (int)Math.Round((double)(x - fromX) * i / length)] = 1;
            }
            before = (x, y);
        }
        return dots;
    }

    private static string Row(int[,] dots, int row, int columns, HashSet<int> marks, Func<string, string, string> paint)
    {
        var line = new StringBuilder();
        var run = new StringBuilder();
        for (int column = 0; column < columns; column++)
        {
            int pattern = 0;
            for (int dot = 0; dot < s_dots.Length; dot++)
            {
                pattern |= dots[(row * 4) + (dot % 4), (column * 2) + (dot / 4)] != 0 ? s_dots[dot] : 0;
            }
            if (pattern == 0 && marks.Contains(column))
            {
                Flush();
                line.Append(paint("mark", Mark.ToString()));
            }
            else
            {
                run.Append((char)(Empty + pattern));
            }
        }
        Flush();
        return line.ToString();

        void Flush()
        {
            line.Append(run.Length > 0 ? paint("curve", run.ToString()) : "");
            run.Clear();
        }
    }

    private static string Number(double value) => value.ToString(Math.Abs(value) is 0 or (>= 0.001 and < 100000) ? "0.####" : "0.##E+0", CultureInfo.InvariantCulture);
}
