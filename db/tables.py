"""The schema of today: every table, with the constraints that no code path can talk its way around.

Times are seconds since the epoch by the database's clock. A tenant's rows point at each other through (tenant_id, ...) pairs, so that
no row can name another tenant's. `migrations/versions` leads here step by step, and a test compares the two.
"""

from collections.abc import Iterable

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from db.states import CANCEL_MODES, CODES, KEEPS, KINDS, STATES, SWEEP_STATES

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# Plain json and never jsonb: it keeps what it was given, also the "\u0000" that a user may send and jsonb refuses.
Json = JSON(none_as_null=True)


def _one_of(column: str, words: Iterable[str]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(repr(word) for word in words)})", name=column)


tenant = Table(
    "tenant",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("max_running", Integer, nullable=False, server_default="64"),
    Column("created_at", Double, nullable=False),
)

api_key = Table(
    "api_key",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant_id", ForeignKey("tenant.id"), nullable=False, index=True),
    Column("handle", Text, nullable=False, unique=True),
    Column("secret_sha", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("last_used_at", Double),
    Column("revoked_at", Double),
)

# A blob without a sha256 is being written (or taken apart) and visible to nobody; with one it is whole, and found by it.
blob = Table(
    "blob",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant_id", ForeignKey("tenant.id"), nullable=False),
    Column("sha256", Text),
    Column("size", BigInteger, nullable=False, server_default="0"),
    Column("touched_at", Double, nullable=False),
    Column("place", Text, nullable=False, server_default="database"),
    UniqueConstraint("tenant_id", "sha256"),
    _one_of("place", ("database", "directory")),
)

blob_chunk = Table(
    "blob_chunk",
    metadata,
    Column("blob_id", ForeignKey("blob.id"), primary_key=True),
    Column("i", Integer, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
)

upload = Table(
    "upload",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant_id", ForeignKey("tenant.id"), nullable=False, index=True),
    Column("purpose", Text, nullable=False),
    Column("filename", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("blob_id", Text),  # the unnamed blob that the bytes go to while they come
    Column("received", BigInteger, nullable=False, server_default="0"),
    Column("writer", Text),
    Column("written_at", Double),
    _one_of("purpose", ("teacher", "dataset", "student")),
    _one_of("status", ("pending", "completed", "cancelled")),
)

job = Table(
    "job",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant_id", ForeignKey("tenant.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("desired", Text, nullable=False),
    Column("cancel_mode", Text, nullable=False, server_default="now"),
    Column("cancel_keep", Text, nullable=False, server_default="checkpoint"),
    Column("fence", Integer, nullable=False, server_default="0"),
    Column("owner", Text),
    Column("lease_until", Double),
    Column("run_after", Double, nullable=False),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("crashes", Integer, nullable=False, server_default="0"),
    Column("spec", Json, nullable=False),
    Column("inputs", Json, nullable=False),
    Column("spec_sha", Text),
    Column("parent_id", Text),
    Column("seconds_limit", Double),
    Column("seconds_left", Double),
    Column("deadline", Double),
    Column("code", Text),
    Column("problem", Json),
    Column("result", Json),
    Column("checkpoint_done", BigInteger),
    Column("event_seq", Integer, nullable=False, server_default="0"),
    Column("published_at", Double),
    Column("metadata", Json, nullable=False),
    Column("created_at", Double, nullable=False),
    UniqueConstraint("tenant_id", "id"),
    ForeignKeyConstraint(["tenant_id", "parent_id"], ["job.tenant_id", "job.id"]),
    _one_of("kind", KINDS),
    _one_of("queue", ("any", "gpu", "cpu")),
    _one_of("state", STATES),
    _one_of("desired", ("run", "pause", "cancel")),
    _one_of("code", CODES),
    _one_of("cancel_mode", CANCEL_MODES),
    _one_of("cancel_keep", KEEPS),
    CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name="lease"),
    CheckConstraint("(state = 'running') = (owner IS NOT NULL)", name="owner"),
    CheckConstraint("(state = 'succeeded') = (result IS NOT NULL)", name="result"),
    CheckConstraint("state <> 'queued' OR desired = 'run'", name="queued"),
    CheckConstraint("state <> 'paused' OR desired = 'pause'", name="paused"),
    CheckConstraint("desired = 'cancel' OR cancel_mode = 'now' AND cancel_keep = 'checkpoint'", name="cancel"),
    CheckConstraint("state NOT IN ('failed', 'cancelled', 'quarantined') OR code IS NOT NULL", name="ending"),
    Index("ix_job_claim", "state", "queue", "run_after"),
    Index("ix_job_spec", "tenant_id", "spec_sha"),
)

job_event = Table(
    "job_event",
    metadata,
    Column("job_id", ForeignKey("job.id"), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("fence", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("data", Json, nullable=False),
    Index("ix_job_event_kind", "job_id", "kind", "seq"),
    # The second line of defence behind the fence: a job cannot be completed twice, whatever the code does.
    Index(
        "one_completion",
        "job_id",
        unique=True,
        sqlite_where=text("kind = 'succeeded'"),
        postgresql_where=text("kind = 'succeeded'"),
    ),
)

job_attempt = Table(
    "job_attempt",
    metadata,
    Column("job_id", ForeignKey("job.id"), primary_key=True),
    Column("fence", Integer, primary_key=True, autoincrement=False),
    Column("worker", Text, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("ended_at", Double),
    Column("code", Text),
    Column("exit_code", Integer),
    Column("signal", Integer),
    Column("max_rss", BigInteger),
    Column("log_tail", Text),
)

checkpoint = Table(
    "checkpoint",
    metadata,
    Column("job_id", Text, primary_key=True),
    Column("done", BigInteger, primary_key=True, autoincrement=False),
    Column("tenant_id", Text, nullable=False),
    Column("fit", Integer, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("blob", Text, nullable=False),
    Column("measured", Json, nullable=False),
    Column("created_at", Double, nullable=False),
    ForeignKeyConstraint(["tenant_id", "job_id"], ["job.tenant_id", "job.id"]),
    ForeignKeyConstraint(["tenant_id", "blob"], ["blob.tenant_id", "blob.sha256"]),
    Index("ix_checkpoint_blob", "tenant_id", "blob"),
)

artifact = Table(
    "artifact",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("job_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("format", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("facts", Json, nullable=False),
    Column("created_at", Double, nullable=False),
    UniqueConstraint("job_id", "format", "name"),
    ForeignKeyConstraint(["tenant_id", "job_id"], ["job.tenant_id", "job.id"]),
    ForeignKeyConstraint(["tenant_id", "sha256"], ["blob.tenant_id", "blob.sha256"]),
    Index("ix_artifact_blob", "tenant_id", "sha256"),
)

asset = Table(
    "asset",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant_id", ForeignKey("tenant.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("request", Json, nullable=False),
    Column("report", Json),
    Column("problem", Json),
    Column("blob", Text),
    Column("job_id", Text, nullable=False, unique=True),
    Column("metadata", Json, nullable=False),
    Column("created_at", Double, nullable=False),
    ForeignKeyConstraint(["tenant_id", "job_id"], ["job.tenant_id", "job.id"]),
    ForeignKeyConstraint(["tenant_id", "blob"], ["blob.tenant_id", "blob.sha256"]),
    _one_of("kind", ("teacher", "architecture", "dataset")),
    _one_of("status", ("processing", "ready", "rejected")),
    CheckConstraint("(status = 'ready') = (report IS NOT NULL)", name="report"),
    CheckConstraint("(status = 'rejected') = (problem IS NOT NULL)", name="problem"),
    Index("ix_asset_list", "tenant_id", "kind"),
    Index("ix_asset_blob", "tenant_id", "blob"),
)

sweep = Table(
    "sweep",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant_id", ForeignKey("tenant.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("request", Json, nullable=False),
    Column("problem", Json),
    Column("result", Json),
    Column("metadata", Json, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("ended_at", Double),
    UniqueConstraint("tenant_id", "id"),
    _one_of("state", SWEEP_STATES),
    CheckConstraint("(state = 'succeeded') = (result IS NOT NULL)", name="result"),
    CheckConstraint("(state = 'failed') = (problem IS NOT NULL)", name="problem"),
    CheckConstraint("(state = 'running') = (ended_at IS NULL)", name="ended"),
    Index("ix_sweep_state", "state"),
)

# Which jobs are a sweep's trials; what a trial tried and measured stands in its job. One that no job could be made of has its refusal
# instead. A table and no columns of `job`: SQLite cannot add a pair of columns that points at another table.
trial = Table(
    "trial",
    metadata,
    Column("sweep_id", Text, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("tenant_id", Text, nullable=False),
    Column("job_id", Text, unique=True),
    Column("refusal", Json),
    ForeignKeyConstraint(["tenant_id", "sweep_id"], ["sweep.tenant_id", "sweep.id"]),
    ForeignKeyConstraint(["tenant_id", "job_id"], ["job.tenant_id", "job.id"]),
    CheckConstraint("(job_id IS NULL) = (refusal IS NOT NULL)", name="refusal"),
)

# It outlives what it names and has no reference to it: a late replay answers as the first request did.
idempotency_key = Table(
    "idempotency_key",
    metadata,
    Column("tenant_id", ForeignKey("tenant.id"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("job_id", Text, nullable=False),  # or the id of a sweep
    Column("created_at", Double, nullable=False),
)

worker = Table(
    "worker",
    metadata,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("queues", Json, nullable=False),
    Column("device", Text, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("threads", Integer, nullable=False),
    Column("busy", Integer, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("calibration", Json),
)
