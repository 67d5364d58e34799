"""The answers of the API: what every resource looks like from outside."""

from datetime import UTC, datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field

from db.states import AssetKind, Code, Fault, Kind

T = TypeVar("T")
Status = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled", "quarantined", "pausing", "cancelling"]


def when(seconds: float) -> datetime:
    """A moment of the database's clock, as the API tells it: RFC 3339, UTC."""
    return datetime.fromtimestamp(seconds, UTC)


class Listing(BaseModel, Generic[T]):
    """One page; `next_cursor` is the `after` of the next one."""

    object: Literal["list"] = "list"
    data: list[T]
    has_more: bool = False
    next_cursor: str | None = None


def page(rows: list[Any], cards: list[T], limit: int) -> Listing[T]:
    """A page of `limit` cards, when one row more than that was asked for to see whether there is more."""
    has_more = len(rows) > limit
    return Listing(data=cards, has_more=has_more, next_cursor=rows[limit - 1].id if has_more else None)


class UploadCard(BaseModel):
    """Bytes that were declared, and whether they came."""

    object: Literal["upload"] = "upload"
    id: str
    status: str = Field(description="pending, completed or cancelled")
    purpose: str
    filename: str
    bytes: int
    offset: int = Field(description="how many bytes are there: the next to come is the one at this place")
    failed: bool = Field(description="all bytes came, with another digest than was declared: they may come again, from 0")
    sha256: str
    created_at: datetime
    expires_at: datetime


class AssetCard(BaseModel):
    """A teacher, an architecture or a dataset: `processing` while a worker inspects it, then `ready` or `rejected`."""

    object: AssetKind
    id: str
    name: str
    status: Literal["processing", "ready", "rejected"]
    problem: dict[str, Any] | None = Field(description="why it was rejected: where, reason, hint, code")
    report: dict[str, Any] | None = Field(description="what the inspection found")
    parameters: int | None
    bytes: int | None
    request: dict[str, Any]
    metadata: dict[str, str]
    job: str
    created_at: datetime


class TapCard(BaseModel):
    """A place inside a network that methods on features may name."""

    tap: str
    shape: list[int] = Field(description="without the batch dimension")


class StageCard(BaseModel):
    """A stretch of a network whose maps have one size; default pairs join stages of the same size."""

    size: list[int] = Field(description="[height, width]")
    out: str = Field(description="the tap where the stage ends")
    channels: int
    pre: str | None = Field(description="the tap before the activation that ends it")
    pre_channels: int | None


class Taps(BaseModel):
    """What can be seen inside a network."""

    object: Literal["list"] = "list"
    data: list[TapCard]
    stages: list[StageCard]


class PairCard(BaseModel):
    """A place in the teacher and the place in the student that would become like it."""

    teacher: TapCard
    student: TapCard


class Suggestion(BaseModel):
    """Default pairs of one kind, or why there are none."""

    kind: Literal["out", "pre"] = Field(description='"out": what stages give; "pre": what enters the activation behind them')
    methods: list[str] = Field(description="the methods whose pairs are made of these where a job names none")
    pairs: list[PairCard] = Field(description="stages of the same size, in order; empty where nothing fits together")
    reason: str | None = Field(description="why there are none")
    hint: str | None = Field(description="what to do then")


class Pairs(BaseModel):
    """What of a teacher and a student can be compared without naming it."""

    object: Literal["list"] = "list"
    data: list[Suggestion]


class Progress(BaseModel):
    """How far a job is; steps count over all its fits."""

    percent: float
    epoch: int | None = Field(description="counted from 1, in the running fit")
    step: int
    total_steps: int
    eta_at: datetime | None
    samples_per_second: float | None
    updated_at: datetime


class WorkerOfJob(BaseModel):
    """Who runs the job."""

    id: str


class JobProblem(BaseModel):
    """Why a job did not succeed."""

    code: str
    fault: Fault
    where: str = Field(description="JSON pointer into the job's spec; empty where no field is to blame")
    reason: str
    hint: str
    lines: list[str] = Field(description="the last lines that the child process wrote")


class Urls(BaseModel):
    """Where the rest of a job is."""

    events: str
    metrics: str
    logs: str
    attempts: str
    artifacts: str
    exports: str
    bundle: str


class JobCard(BaseModel):
    """A job as it stands; its `kind` is "distil" but for the inspection of an asset."""

    object: Literal["distillation.job"] = "distillation.job"
    id: str
    kind: Kind
    name: str
    status: Status
    phase: str | None
    is_terminal: bool
    code: Code | None
    message: str
    fault: Fault | None
    attempt: int
    parent: str | None = Field(description="the job that this one tries again; a clone is a job of its own and has none")
    progress: Progress | None
    checkpoint_step: int | None = Field(description="where its last checkpoint stands: from there it resumes, or a retry of it begins")
    latest_metrics: dict[str, float]
    worker: WorkerOfJob | None
    problem: JobProblem | None
    result: dict[str, Any] | None = Field(
        description=(
            "what came of it: `test` and `teacher` hold the figures on the test split; `curves`, where `evaluate` asked for some, those "
            "over an epsilon, as columns by `student` and `teacher` and the name of the measure; `terms`, how a term ran where there was a "
            'choice, as `{"wasserstein": {"form": "tangent"}}`'
        )
    )
    warnings: list[str] = Field(
        description="what its plan warned of when it was submitted: nothing is wrong, but another setting may be meant"
    )
    queue_reason: str | None = Field(description="why the job is still queued, when no living worker can take it")
    actions: list[str] = Field(description="what may be asked for now: each is the last part of an address below the job's own")
    urls: Urls
    spec: dict[str, Any]
    metadata: dict[str, Any]
    sweep: str | None = Field(description="the sweep that made it")
    trial: int | None = Field(description="which trial of its sweep it is")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class EventCard(BaseModel):
    """One thing that happened; `id` counts from 1 without a gap."""

    id: int
    event: str
    at: datetime
    data: dict[str, Any]


class EventPage(BaseModel):
    """A stretch of a job's history."""

    object: Literal["list"] = "list"
    data: list[EventCard]
    has_more: bool


class Curves(BaseModel):
    """The curves of a job; every column has the same length, and "done" is their axis."""

    columns: dict[str, list[float | None]]
    evaluated: list[dict[str, Any]] = Field(description="what was measured on data that was not trained on, oldest first")


class LogLine(BaseModel):
    """A line of a job's log."""

    at: datetime
    level: str
    message: str


class LogLines(BaseModel):
    """The newest lines of a job's log, oldest first, and what the last attempt's child process wrote at its end."""

    object: Literal["list"] = "list"
    data: list[LogLine]
    child: list[str]


class AttemptCard(BaseModel):
    """One try of one worker at a job."""

    fence: int
    worker: str
    started_at: datetime
    finished_at: datetime | None
    code: str | None
    exit_code: int | None
    signal: int | None
    max_rss: int | None = Field(description="the most memory that its process held, in bytes")
    lines: list[str] = Field(description="what its process wrote at its end, where `lines` asked for it")


class ExportCard(BaseModel):
    """A format of a student: `ready` to download, `processing`, or `rejected`, for the `reason` there is."""

    object: Literal["export"] = "export"
    format: str
    status: Literal["processing", "ready", "rejected"]
    reason: str | None = Field(description="why it is not offered, or what holds its job up")
    facts: dict[str, Any] = Field(description="the figures of its comparison with the student, as far as it came to one")
    job: str = Field(description="the job that made it, makes it now, or tried in vain")


class ArtifactCard(BaseModel):
    """A file that a job made; `facts` says how it was verified."""

    object: Literal["artifact"] = "artifact"
    id: str
    job: str = Field(description="the job that made it: the one that trained the student, or a later export of it")
    name: str
    path: str | None = Field(
        description="where it lies in the bundle; none for the checksums of one format's files, for the bundle has its own of all"
    )
    format: str
    sha256: str
    bytes: int
    facts: dict[str, Any]
    created_at: datetime
    content: str = Field(description="where its bytes are")
    warning: str | None = Field(None, description="what to know before the file is opened")
