using TorchSharp.Modules;

namespace TorchSharp;

public static partial class torch
{
    public static partial class nn
    {
        public static class utils
        {
            /// <summary>Scales all gradients so that their common L2 norm is at most max_norm; returns the norm before.
            /// Waits for the device.</summary>
            public static double clip_grad_norm_(IEnumerable<Parameter> parameters, double max_norm)
            {
                using DisposeScope scope = NewDisposeScope();
                using var _ = no_grad();
                List<Tensor> gradients = parameters.Select(parameter => parameter.grad).OfType<Tensor>().ToList();
                if (gradients.Count == 0)
                {
                    return 0;
                }
                Tensor norm = stack(gradients.Select(gradient => gradient.norm())).norm();
                Tensor scale = (max_norm / (norm + 1e-6)).clamp(max: (Scalar)1.0);
                foreach (Tensor gradient in gradients)
                {
                    gradient.mul_(scale);
                }
                return norm.ToDouble();
            }
        }
    }
}
