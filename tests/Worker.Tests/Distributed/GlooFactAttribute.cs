using TorchSharp.Extras;

namespace Trainer.Worker.Tests.Distributed;

/// <summary>Skipped, with the reason, where the native library was built without Gloo.</summary>
internal sealed class GlooFactAttribute : FactAttribute
{
    public GlooFactAttribute() => Skip = Missing;

    /// <summary>Null where Gloo is there.</summary>
    public static string? Missing => GlooGroup.IsAvailable ? null : "libtrainer_torch was built without gloo's headers";
}

/// <inheritdoc cref="GlooFactAttribute"/>
internal sealed class GlooTheoryAttribute : TheoryAttribute
{
    public GlooTheoryAttribute() => Skip = GlooFactAttribute.Missing;
}
