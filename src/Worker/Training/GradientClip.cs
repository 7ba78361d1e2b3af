namespace Trainer.Worker.Training;

/// <summary>Clipping by the global norm.</summary>
public static class GradientClip
{
    /// <summary>What to multiply every gradient with, as torch.nn.utils.clip_grad_norm_ does.</summary>
    /// <param name="limit">0 turns clipping off.</param>
    public static double Scale(double norm, double limit) => limit > 0 && norm > limit ? limit / (norm + 1e-6) : 1;
}
