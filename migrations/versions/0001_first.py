"""The first schema: tenants, bytes, jobs with their history, assets, workers."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    _who()
    _bytes()
    _work()
    _made()
    _service()
    _finality()


def _who() -> None:
    """Tenants and their keys."""
    op.create_table(
        "tenant",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("max_running", sa.Integer(), server_default="64", nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenant")),
        sa.UniqueConstraint("name", name=op.f("uq_tenant_name")),
    )
    op.create_table(
        "api_key",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("handle", sa.Text(), nullable=False),
        sa.Column("secret_sha", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("last_used_at", sa.Double()),
        sa.Column("revoked_at", sa.Double()),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_api_key_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_key")),
        sa.UniqueConstraint("handle", name=op.f("uq_api_key_handle")),
    )
    op.create_index(op.f("ix_api_key_tenant_id"), "api_key", ["tenant_id"])


def _bytes() -> None:
    """Blobs, a mebibyte a row, and the uploads that bring them."""
    op.create_table(
        "blob",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text()),
        sa.Column("size", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("touched_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_blob_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_blob")),
        sa.UniqueConstraint("tenant_id", "sha256", name=op.f("uq_blob_tenant_id_sha256")),
    )
    op.create_table(
        "blob_chunk",
        sa.Column("blob_id", sa.Text(), nullable=False),
        sa.Column("i", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["blob_id"], ["blob.id"], name=op.f("fk_blob_chunk_blob_id")),
        sa.PrimaryKeyConstraint("blob_id", "i", name=op.f("pk_blob_chunk")),
    )
    op.create_table(
        "upload",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.CheckConstraint("purpose IN ('teacher', 'dataset', 'student')", name=op.f("ck_upload_purpose")),
        sa.CheckConstraint("status IN ('pending', 'completed', 'cancelled')", name=op.f("ck_upload_status")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_upload_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_upload")),
    )
    op.create_index(op.f("ix_upload_tenant_id"), "upload", ["tenant_id"])
    if op.get_context().dialect.name == "postgresql":
        op.execute("ALTER TABLE blob_chunk ALTER COLUMN data SET STORAGE EXTERNAL")  # weights are noise: compressing them only takes time


def _work() -> None:
    """Jobs, what happened to them, and who ran them."""
    op.create_table(
        "job",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("desired", sa.Text(), nullable=False),
        sa.Column("fence", sa.Integer(), server_default="0", nullable=False),
        sa.Column("owner", sa.Text()),
        sa.Column("lease_until", sa.Double()),
        sa.Column("run_after", sa.Double(), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("crashes", sa.Integer(), server_default="0", nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("inputs", sa.JSON(), nullable=False),
        sa.Column("spec_sha", sa.Text()),
        sa.Column("parent_id", sa.Text()),
        sa.Column("seconds_limit", sa.Double()),
        sa.Column("seconds_left", sa.Double()),
        sa.Column("deadline", sa.Double()),
        sa.Column("code", sa.Text()),
        sa.Column("problem", sa.JSON()),
        sa.Column("result", sa.JSON()),
        sa.Column("checkpoint_done", sa.BigInteger()),
        sa.Column("event_seq", sa.Integer(), server_default="0", nullable=False),
        sa.Column("published_at", sa.Double()),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name=op.f("ck_job_lease")),
        sa.CheckConstraint("(state = 'running') = (owner IS NOT NULL)", name=op.f("ck_job_owner")),
        sa.CheckConstraint("(state = 'succeeded') = (result IS NOT NULL)", name=op.f("ck_job_result")),
        sa.CheckConstraint(
            "code IN ('invalid_input', 'incompatible_pair', 'teacher_near_chance', 'oom_host', 'oom_gpu', 'diverged', "
            "'native_crash', 'stalled', 'worker_lost', 'storage_full', 'deadline', 'cancelled', 'no_worker', 'internal_error')",
            name=op.f("ck_job_code"),
        ),
        sa.CheckConstraint("desired IN ('run', 'pause', 'cancel')", name=op.f("ck_job_desired")),
        sa.CheckConstraint("kind IN ('distil', 'inspect', 'convert', 'evaluate', 'export')", name=op.f("ck_job_kind")),
        sa.CheckConstraint("queue IN ('any', 'gpu', 'cpu')", name=op.f("ck_job_queue")),
        sa.CheckConstraint("state <> 'paused' OR desired = 'pause'", name=op.f("ck_job_paused")),
        sa.CheckConstraint("state <> 'queued' OR desired = 'run'", name=op.f("ck_job_queued")),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled', 'quarantined')", name=op.f("ck_job_state")
        ),
        sa.CheckConstraint("state NOT IN ('failed', 'cancelled', 'quarantined') OR code IS NOT NULL", name=op.f("ck_job_ending")),
        sa.ForeignKeyConstraint(["tenant_id", "parent_id"], ["job.tenant_id", "job.id"], name=op.f("fk_job_tenant_id_parent_id")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_job_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job")),
        sa.UniqueConstraint("tenant_id", "id", name=op.f("uq_job_tenant_id_id")),
    )
    op.create_index("ix_job_claim", "job", ["state", "queue", "run_after"])
    op.create_index("ix_job_spec", "job", ["tenant_id", "spec_sha"])
    op.create_table(
        "job_event",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_job_event_job_id")),
        sa.PrimaryKeyConstraint("job_id", "seq", name=op.f("pk_job_event")),
    )
    op.create_index("ix_job_event_kind", "job_event", ["job_id", "kind", "seq"])
    op.create_index(
        "one_completion",
        "job_event",
        ["job_id"],
        unique=True,
        sqlite_where=sa.text("kind = 'succeeded'"),
        postgresql_where=sa.text("kind = 'succeeded'"),
    )
    op.create_table(
        "job_attempt",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double()),
        sa.Column("code", sa.Text()),
        sa.Column("exit_code", sa.Integer()),
        sa.Column("signal", sa.Integer()),
        sa.Column("max_rss", sa.BigInteger()),
        sa.Column("log_tail", sa.Text()),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_job_attempt_job_id")),
        sa.PrimaryKeyConstraint("job_id", "fence", name=op.f("pk_job_attempt")),
    )


def _made() -> None:
    """What jobs leave, and what they start from."""
    op.create_table(
        "checkpoint",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("done", sa.BigInteger(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("fit", sa.Integer(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("blob", sa.Text(), nullable=False),
        sa.Column("measured", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id", "blob"], ["blob.tenant_id", "blob.sha256"], name=op.f("fk_checkpoint_tenant_id_blob")),
        sa.ForeignKeyConstraint(["tenant_id", "job_id"], ["job.tenant_id", "job.id"], name=op.f("fk_checkpoint_tenant_id_job_id")),
        sa.PrimaryKeyConstraint("job_id", "done", name=op.f("pk_checkpoint")),
    )
    op.create_index("ix_checkpoint_blob", "checkpoint", ["tenant_id", "blob"])
    op.create_table(
        "artifact",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id", "job_id"], ["job.tenant_id", "job.id"], name=op.f("fk_artifact_tenant_id_job_id")),
        sa.ForeignKeyConstraint(["tenant_id", "sha256"], ["blob.tenant_id", "blob.sha256"], name=op.f("fk_artifact_tenant_id_sha256")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_artifact")),
        sa.UniqueConstraint("job_id", "format", "name", name=op.f("uq_artifact_job_id_format_name")),
    )
    op.create_index("ix_artifact_blob", "artifact", ["tenant_id", "sha256"])
    op.create_table(
        "asset",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("request", sa.JSON(), nullable=False),
        sa.Column("report", sa.JSON()),
        sa.Column("problem", sa.JSON()),
        sa.Column("blob", sa.Text()),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.CheckConstraint("(status = 'ready') = (report IS NOT NULL)", name=op.f("ck_asset_report")),
        sa.CheckConstraint("(status = 'rejected') = (problem IS NOT NULL)", name=op.f("ck_asset_problem")),
        sa.CheckConstraint("kind IN ('teacher', 'architecture', 'dataset')", name=op.f("ck_asset_kind")),
        sa.CheckConstraint("status IN ('processing', 'ready', 'rejected')", name=op.f("ck_asset_status")),
        sa.ForeignKeyConstraint(["tenant_id", "blob"], ["blob.tenant_id", "blob.sha256"], name=op.f("fk_asset_tenant_id_blob")),
        sa.ForeignKeyConstraint(["tenant_id", "job_id"], ["job.tenant_id", "job.id"], name=op.f("fk_asset_tenant_id_job_id")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_asset_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_asset")),
        sa.UniqueConstraint("job_id", name=op.f("uq_asset_job_id")),
    )
    op.create_index("ix_asset_blob", "asset", ["tenant_id", "blob"])
    op.create_index("ix_asset_list", "asset", ["tenant_id", "kind"])


def _service() -> None:
    """What the service remembers of requests and of workers."""
    op.create_table(
        "idempotency_key",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_idempotency_key_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "key", name=op.f("pk_idempotency_key")),
    )
    op.create_table(
        "worker",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("queues", sa.JSON(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("threads", sa.Integer(), nullable=False),
        sa.Column("busy", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_worker")),
    )


def _finality() -> None:
    """A job that has ended stays as it ended, whatever the code does."""
    ended = "OLD.state IN ('succeeded', 'failed', 'cancelled') AND NEW.state <> OLD.state"
    if op.get_context().dialect.name == "sqlite":
        op.execute(
            f"""CREATE TRIGGER job_has_ended BEFORE UPDATE OF state ON job WHEN {ended}
            BEGIN SELECT RAISE(ABORT, 'a job that has ended never changes its state'); END"""
        )
        return
    op.execute(
        """CREATE FUNCTION job_has_ended() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'a job that has ended never changes its state' USING ERRCODE = 'check_violation'; END $$"""
    )
    op.execute(
        f"""CREATE TRIGGER job_has_ended BEFORE UPDATE OF state ON job FOR EACH ROW WHEN ({ended})
        EXECUTE FUNCTION job_has_ended()"""
    )
