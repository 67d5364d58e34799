"""Uploads that resume, blobs that lie in a directory, and what a worker measured of itself."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("upload", sa.Column("blob_id", sa.Text))
    op.add_column("upload", sa.Column("received", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("upload", sa.Column("writer", sa.Text))
    op.add_column("upload", sa.Column("written_at", sa.Double))
    # In words of SQL, as in 0003: alembic would copy a table of SQLite for a column with a constraint.
    place = "place TEXT DEFAULT 'database' NOT NULL CONSTRAINT ck_blob_place CHECK (place IN ('database', 'directory'))"
    op.execute(f"ALTER TABLE blob ADD COLUMN {place}")
    op.add_column("worker", sa.Column("calibration", sa.JSON))
