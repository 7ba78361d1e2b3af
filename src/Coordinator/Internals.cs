using System.Runtime.CompilerServices;

[assembly: InternalsVisibleTo("Coordinator.Tests")]
