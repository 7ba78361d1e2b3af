using System.Collections.Immutable;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>Something happened to a job.</summary>
public abstract record JobEvent(DateTimeOffset At);

/// <summary>The queue gave the job room for all its ranks: the node of each.</summary>
public sealed record RoomGranted(DateTimeOffset At, ImmutableArray<string> Nodes) : JobEvent(At);

/// <summary>The queue did not, and says why.</summary>
public sealed record RoomMissing(DateTimeOffset At, string Reason, int? Position = null) : JobEvent(At);

/// <summary>The pause after a failed attempt is over.</summary>
public sealed record RetryDue(DateTimeOffset At) : JobEvent(At);

/// <summary>The database took so long to store the job: it was locked, or its disk is slow.</summary>
public sealed record StoreWasSlow(DateTimeOffset At, TimeSpan Took) : JobEvent(At);

public sealed record CancelAsked(DateTimeOffset At) : JobEvent(At);

public sealed record PauseAsked(DateTimeOffset At) : JobEvent(At);

public sealed record ResumeAsked(DateTimeOffset At) : JobEvent(At);

public sealed record PriorityAsked(DateTimeOffset At, int Priority) : JobEvent(At);

/// <summary>Something that one attempt did. It counts for the newest attempt only.</summary>
public abstract record AttemptEvent(DateTimeOffset At, int Attempt) : JobEvent(At);

/// <summary>The coordinator is another process than the one that started the attempt.</summary>
public sealed record CoordinatorReplaced(DateTimeOffset At, int Attempt) : AttemptEvent(At, Attempt);

/// <summary>Every rank has a process.</summary>
public sealed record RanksStarted(DateTimeOffset At, int Attempt) : AttemptEvent(At, Attempt);

/// <summary>Rank 0 reported.</summary>
public sealed record RankReported(DateTimeOffset At, RankReport Report) : AttemptEvent(At, Report.Attempt);

/// <summary>The ranks left a result.</summary>
public sealed record RankEnded(DateTimeOffset At, int Attempt, RankResult Result) : AttemptEvent(At, Attempt);

/// <summary>A rank is gone, hung or out of reach for good, and left no result.</summary>
/// <param name="Nodes">Where it may be the machine's fault.</param>
public sealed record RankLost(DateTimeOffset At, int Attempt, FailureClass Class, string Message, ImmutableArray<string> Nodes = default) : AttemptEvent(At, Attempt);

/// <summary>No rank moves any more although processes live.</summary>
public sealed record HangFound(DateTimeOffset At, int Attempt, string Message) : AttemptEvent(At, Attempt);

/// <summary>A node does not answer; its ranks may well go on.</summary>
public sealed record NodeFellSilent(DateTimeOffset At, int Attempt, string Node) : AttemptEvent(At, Attempt);

public sealed record NodeAnswered(DateTimeOffset At, int Attempt, string Node) : AttemptEvent(At, Attempt);

/// <summary>Something is wrong while the ranks go on; null: no longer.</summary>
public sealed record TroubleChanged(DateTimeOffset At, int Attempt, string? Trouble) : AttemptEvent(At, Attempt);

/// <summary>A node is being emptied.</summary>
public sealed record NodeDraining(DateTimeOffset At, int Attempt, string Node) : AttemptEvent(At, Attempt);

/// <summary>What is to be done once the record is stored. Each may be carried out twice.</summary>
public abstract record JobEffect;

/// <summary>Tells the nodes to run the ranks of this attempt.</summary>
public sealed record StartRanks(int Attempt) : JobEffect;

/// <summary>Tells the nodes to end every rank of attempts up to this one.</summary>
public sealed record KillRanks(int UpTo) : JobEffect;

/// <summary>Gives the room back to the queue.</summary>
public sealed record Vacate : JobEffect;

/// <summary>Lets the index forget that the job needs looking after.</summary>
public sealed record Retire : JobEffect;
