using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>Something happened to a job.</summary>
public abstract record JobEvent(DateTimeOffset At);

/// <summary>The queue gave the machine to the job.</summary>
public sealed record MachineGranted(DateTimeOffset At) : JobEvent(At);

/// <summary>The queue did not, and says why.</summary>
public sealed record MachineBusy(DateTimeOffset At, string Reason) : JobEvent(At);

/// <summary>The pause after a failed attempt is over.</summary>
public sealed record RetryDue(DateTimeOffset At) : JobEvent(At);

public sealed record CancelAsked(DateTimeOffset At) : JobEvent(At);

public sealed record ResumeAsked(DateTimeOffset At) : JobEvent(At);

/// <summary>Something that one attempt did. It counts for the newest attempt only.</summary>
public abstract record AttemptEvent(DateTimeOffset At, int Attempt) : JobEvent(At);

public sealed record RankStarted(DateTimeOffset At, int Attempt, ProcessIdentity Process) : AttemptEvent(At, Attempt);

public sealed record RankReported(DateTimeOffset At, RankReport Report) : AttemptEvent(At, Report.Attempt);

/// <summary>The rank left a result.</summary>
public sealed record RankEnded(DateTimeOffset At, int Attempt, RankResult Result) : AttemptEvent(At, Attempt);

/// <summary>The rank is gone, or silent for too long, and left no result.</summary>
public sealed record RankLost(DateTimeOffset At, int Attempt, FailureClass Class, string Message) : AttemptEvent(At, Attempt);

/// <summary>What is to be done once the record is stored. Each may be carried out twice.</summary>
public abstract record JobEffect;

public sealed record StartRank(int Attempt) : JobEffect;

/// <summary>Ends every process of attempts up to this one.</summary>
public sealed record KillRanks(int UpTo) : JobEffect;

/// <summary>Gives the machine back to the queue and lets the index forget that the job needs looking after.</summary>
public sealed record Retire : JobEffect;
