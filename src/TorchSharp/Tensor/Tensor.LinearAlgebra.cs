using TorchSharp.Native;

namespace TorchSharp;

public static partial class torch
{
    public partial class Tensor
    {
        public Tensor matmul(Tensor target) => Aten.Call("matmul", this, target);
        public Tensor mm(Tensor target) => Aten.Call("mm", this, target);
        public Tensor bmm(Tensor batch2) => Aten.Call("bmm", this, batch2);
        public Tensor mv(Tensor vector) => Aten.Call("mv", this, vector);
        public Tensor dot(Tensor other) => Aten.Call("dot", this, other);
        public Tensor outer(Tensor vec2) => Aten.Call("outer", this, vec2);

        /// <summary>beta * this + alpha * mat1 @ mat2.</summary>
        public Tensor addmm(Tensor mat1, Tensor mat2, float beta = 1, float alpha = 1) =>
            Aten.Call("addmm", this, mat1, mat2, (Scalar)beta, (Scalar)alpha);
        public Tensor addmm_(Tensor mat1, Tensor mat2, float beta = 1, float alpha = 1) =>
            Aten.InPlace("addmm_", this, mat1, mat2, (Scalar)beta, (Scalar)alpha);
        public Tensor baddbmm(Tensor batch1, Tensor batch2, float beta = 1, float alpha = 1) =>
            Aten.Call("baddbmm", this, batch1, batch2, (Scalar)beta, (Scalar)alpha);
        public Tensor baddbmm_(Tensor batch1, Tensor batch2, float beta = 1, float alpha = 1) =>
            Aten.InPlace("baddbmm_", this, batch1, batch2, (Scalar)beta, (Scalar)alpha);
    }
}
