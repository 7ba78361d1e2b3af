namespace Nccl;

/// <summary>Elements side by side in the memory of this rank's GPU.</summary>
/// <param name="Pointer">Of the device.</param>
/// <param name="Count">In elements, not bytes.</param>
public readonly record struct DeviceBuffer(nint Pointer, long Count, DataType Type);
