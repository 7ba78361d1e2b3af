using Trainer.Worker.Reports;

namespace Trainer.Worker.Tests.Reports;

public sealed class FullDiskTests
{
    [Fact]
    public void A_full_disk_is_told_with_its_cure_and_another_error_as_it_is()
    {
        IOException full = Assert.ThrowsAny<IOException>(() =>
        {
            using FileStream file = File.OpenWrite("/dev/full");
            file.WriteByte(1);
            file.Flush();
        });
        Assert.Equal($"{full.Message}; make room there", FullDisk.Tell(full));
        Assert.Equal("broken", FullDisk.Tell(new IOException("broken")));
    }
}
