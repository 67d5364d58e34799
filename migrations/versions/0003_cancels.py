"""How a cancel is carried out: gracefully or now, keeping the checkpoint or nothing."""

from alembic import op

revision = "0003"
down_revision = "0002"

_COLUMNS = (
    "cancel_mode TEXT DEFAULT 'now' NOT NULL CONSTRAINT ck_job_cancel_mode CHECK (cancel_mode IN ('graceful', 'now'))",
    "cancel_keep TEXT DEFAULT 'checkpoint' NOT NULL CONSTRAINT ck_job_cancel_keep CHECK (cancel_keep IN ('checkpoint', 'nothing'))"
    " CONSTRAINT ck_job_cancel CHECK (desired = 'cancel' OR cancel_mode = 'now' AND cancel_keep = 'checkpoint')",
)


def upgrade() -> None:
    # In words of SQL, which both databases read alike: alembic adds no constraint to a table of SQLite without copying the table.
    for column in _COLUMNS:
        op.execute(f"ALTER TABLE job ADD COLUMN {column}")
