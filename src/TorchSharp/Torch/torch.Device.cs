using System.Globalization;

namespace TorchSharp;

/// <summary>libtorch's numbering.</summary>
public enum DeviceType
{
    CPU = 0,
    CUDA = 1,
    META = 14,
}

public static partial class torch
{
    public static readonly Device CPU = new(DeviceType.CPU);
    public static readonly Device CUDA = new(DeviceType.CUDA);
    public static readonly Device META = new(DeviceType.META);

    public static Device device(string description) => new(description);
    public static Device device(string deviceType, int index = -1) => new(deviceType, index);
    public static Device device(DeviceType deviceType, int index = -1) => new(deviceType, index);
    public static Device device(int index) => new(DeviceType.CUDA, index);

    /// <summary>Where a tensor lives. Index -1: the current device of the type.</summary>
    public sealed class Device : IEquatable<Device>
    {
        /// <param name="description">"cpu", "cuda" or "cuda:1".</param>
        public Device(string description)
        {
            string[] parts = description.Split(':');
            type = ParseType(parts[0], description);
            index = parts.Length == 1 ? -1 : ParseIndex(parts, description);
        }

        public Device(string deviceType, int index = -1) : this(ParseType(deviceType, deviceType), index)
        {
        }

        public Device(DeviceType deviceType, int index = -1)
        {
            type = deviceType;
            this.index = index;
        }

        public Device(int index) : this(DeviceType.CUDA, index)
        {
        }

        public DeviceType type { get; }
        public int index { get; }

        /// <summary>The form in which trainer_torch.h passes a device.</summary>
        internal long Packed => (long)type << 8 | (byte)index;

        internal static Device FromPacked(long packed) => new((DeviceType)(packed >> 8), (sbyte)(packed & 0xff));

        public static implicit operator Device(string description) => new(description);

        public bool Equals(Device? other) => other is not null && type == other.type && index == other.index;
        public override bool Equals(object? obj) => Equals(obj as Device);
        public override int GetHashCode() => Packed.GetHashCode();

        public override string ToString()
        {
            string name = type switch { DeviceType.CPU => "cpu", DeviceType.CUDA => "cuda", _ => "meta" };
            return index < 0 ? name : string.Create(CultureInfo.InvariantCulture, $"{name}:{index}");
        }

        private static DeviceType ParseType(string name, string description) => name switch
        {
            "cpu" => DeviceType.CPU,
            "cuda" => DeviceType.CUDA,
            "meta" => DeviceType.META,
            _ => throw new ArgumentException($"'{description}' is no device; use cpu, cuda or cuda:N"),
        };

        private static int ParseIndex(string[] parts, string description) =>
            parts.Length == 2 && int.TryParse(parts[1], NumberStyles.None, CultureInfo.InvariantCulture, out int index)
                ? index
                : throw new ArgumentException($"'{description}' is no device; use cpu, cuda or cuda:N");
    }
}
