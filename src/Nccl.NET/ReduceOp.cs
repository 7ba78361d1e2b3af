namespace Nccl;

/// <summary>ncclRedOp_t.</summary>
public enum ReduceOp
{
    Sum = 0,
    Product = 1,
    Max = 2,
    Min = 3,
    Average = 4,
}
