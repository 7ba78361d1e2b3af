using TorchSharp;
using static TorchSharp.torch;

namespace Trainer.Worker.Tests.Kernels;

/// <summary>Runs an operation forward and backward and compares values and gradients with a float64 reference.</summary>
internal static class Differentiation
{
    /// <summary>
    /// Outputs, then the gradient of each input, in float64. Upstream gradients are normal random, so that an error which sums
    /// or a constant would hide shows.
    /// </summary>
    public static Tensor[] Run(Func<Tensor[], Tensor[]> operation, ScalarType dtype, params Tensor[] inputs)
    {
        Tensor[] leaves = [.. inputs.Select(input => input.detach().to(dtype).clone().requires_grad_())];
        Tensor[] outputs = operation(leaves);
        using Generator generator = new(99);
        Tensor[] upstream = [.. outputs.Select(output => randn(output.shape, generator: generator).to(bfloat16).to(output.dtype))];
        autograd.backward(outputs, upstream);
        return [.. outputs.Select(output => output.detach().to(float64)), .. leaves.Select(leaf => leaf.grad!.to(float64))];
    }

    /// <summary>Both get the same inputs, already rounded to the dtype; each result must be within the tolerance times the
    /// reference's largest element, or a tenth of the largest of all results: a gradient may cancel to nothing.</summary>
    public static void AssertClose(
        Func<Tensor[], Tensor[]> operation, Func<Tensor[], Tensor[]> reference, ScalarType dtype, double tolerance, params Tensor[] inputs)
    {
        Tensor[] rounded = [.. inputs.Select(input => input.to(dtype))];
        Tensor[] actual = Run(operation, dtype, rounded);
        Tensor[] expected = Run(reference, float64, rounded);
        double floor = expected.Max(Largest) / 10;
        for (int i = 0; i < expected.Length; i++)
        {
            Assert.Equal(expected[i].shape, actual[i].shape);
            double error = LargestError(actual[i], expected[i]);
            double limit = tolerance * Math.Max(floor, Largest(expected[i]));
            Assert.True(error <= limit, $"result {i}: error {error:g3} exceeds {limit:g3}");
        }
    }

    public static double LargestError(Tensor actual, Tensor expected) => Largest(actual - expected);

    public static double Largest(Tensor tensor) => tensor.NumberOfElements == 0 ? 0 : tensor.abs().max().ToDouble();

    public static Tensor Normal(ulong seed, params long[] shape)
    {
        using Generator generator = new(seed);
        return randn(shape, generator: generator);
    }

    /// <summary>Storage precision of one rounding, with room for the sums.</summary>
    public static double Tolerance(ScalarType dtype) => dtype == float32 ? 1e-5 : 1.0 / 128;
}
