using TorchSharp; using static TorchSharp.torch;
using Trainer.Worker.Attention;
namespace Trainer.Worker.Kernels;
public static partial class Ops {
  public static Tensor FlashAttention(Tensor q, Tensor k, Tensor v, Tensor cu, double scale, int window = -1) => MathAttention.Forward(q,k,v,cu,scale,window);
  public static Tensor RmsNorm(Tensor x, Tensor weight, double epsilon) => x * (x.pow(2).mean([-1L], true) + epsilon).rsqrt() * weight;
  public static (Tensor Normed, Tensor Sum) AddRmsNorm(Tensor x, Tensor residual, Tensor weight, double epsilon) { var s = x + residual; return (RmsNorm(s, weight, epsilon), s); }
  public static Tensor Rotary(Tensor x, Tensor cos, Tensor sin) { long h = x.shape[2]/2; var a = x.narrow(2,0,h); var b = x.narrow(2,h,h); var c = cos.unsqueeze(1); var s = sin.unsqueeze(1); return cat([a*c-b*s, b*c+a*s], 2); }
  public static Tensor SwiGlu(Tensor g) { long f = g.shape[1]/2; return nn.functional.silu(g.narrow(1,0,f)) * g.narrow(1,f,f); }
  public static Tensor LinearCrossEntropy(Tensor h, Tensor w, Tensor labels, double scale, int chunkRows = 0) => nn.functional.cross_entropy(matmul(h, w.t()), labels, ignore_index: -100, reduction: nn.Reduction.Sum) * scale;
  public static Tensor Dropout(Tensor x, double p, ulong seed) => x;
}
public static class AdamWKernel {
  public static void Step(Tensor p, Tensor m, Tensor v, Tensor g0, double lr, double b1, double b2, double eps, double wd, long step, double gs, Tensor? copy) { using var _ = no_grad(); using var d = NewDisposeScope(); var g = g0 * gs; p.mul_(1-lr*wd); m.mul_(b1).add_(g*(1-b1)); v.mul_(b2).add_(g*g*(1-b2)); var denom = v.sqrt() / Math.Sqrt(1-Math.Pow(b2,step)) + eps; p.sub_(m/denom*(lr/(1-Math.Pow(b1,step)))); }
  public static double SumOfSquares(Tensor g) { using var d = NewDisposeScope(); return g.to(ScalarType.Float64).pow(2).sum().ToDouble(); }
  public static void Accumulate(Tensor s, Tensor a) { using var _ = no_grad(); s.add_(a); }
}
