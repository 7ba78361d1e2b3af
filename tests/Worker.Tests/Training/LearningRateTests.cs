using Trainer.Contracts;
using Trainer.Worker.Training;

namespace Trainer.Worker.Tests.Training;

public sealed class LearningRateTests
{
    [Theory]
    [InlineData(ScheduleKind.Cosine, 0, 0.1)]
    [InlineData(ScheduleKind.Cosine, 9, 1.0)]
    [InlineData(ScheduleKind.Cosine, 10, 1.0)]
    [InlineData(ScheduleKind.Cosine, 60, 0.6)]
    [InlineData(ScheduleKind.Cosine, 110, 0.2)]
    [InlineData(ScheduleKind.Linear, 60, 0.6)]
    [InlineData(ScheduleKind.Linear, 110, 0.2)]
    [InlineData(ScheduleKind.Constant, 60, 1.0)]
    [InlineData(ScheduleKind.Constant, 4, 0.5)]
    public void Warms_up_then_falls_to_the_minimum(ScheduleKind schedule, int step, double expected)
    {
        var config = new OptimizerConfig { LearningRate = 1, MinLearningRate = 0.2, WarmupSteps = 10, Schedule = schedule };
        Assert.Equal(expected, new LearningRate(config, 110).At(step), 12);
    }

    [Fact]
    public void A_warm_up_ratio_is_a_share_of_all_steps()
    {
        var rate = new LearningRate(new OptimizerConfig { LearningRate = 1, WarmupRatio = 0.1 }, 100);
        Assert.Equal(0.5, rate.At(4), 12);
        Assert.Equal(1, rate.At(9), 12);
        Assert.True(rate.At(50) < 1);
    }
}
