"""What the model knows of one job."""

from dataclasses import dataclass, field


@dataclass(frozen=True, order=True)
class Kept:
    """A checkpoint."""

    done: int
    blob: str
    accuracy: float | None


@dataclass
class Expected:
    """One job. `told` are its events, (kind, fence), `at` is when the last was told; `attempts` says of each fence whether its attempt has
    ended; `full` are the fences of those that ended for want of room; `kept` are its checkpoints, the oldest first.
    """

    id: str
    tenant: str
    queue: str
    priority: int
    run_after: float
    seconds_limit: float | None
    seconds_left: float | None
    parent_id: str | None = None
    state: str = "queued"
    desired: str = "run"
    cancel_mode: str = "now"
    cancel_keep: str = "checkpoint"
    fence: int = 0
    attempt: int = 0
    crashes: int = 0
    code: str | None = None
    lease: float | None = None
    deadline: float | None = None
    published: float | None = None
    at: float = 0.0
    kept: list[Kept] = field(default_factory=list)
    attempts: dict[int, bool] = field(default_factory=dict)
    full: list[int] = field(default_factory=list)
    told: list[tuple[str, int]] = field(default_factory=list)

    @property
    def done(self) -> int | None:
        """Where it goes on."""
        return self.kept[-1].done if self.kept else None
