"""Sweeps, and which jobs are their trials."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "sweep",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("request", sa.JSON(), nullable=False),
        sa.Column("problem", sa.JSON()),
        sa.Column("result", sa.JSON()),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double()),
        sa.CheckConstraint("(state = 'succeeded') = (result IS NOT NULL)", name=op.f("ck_sweep_result")),
        sa.CheckConstraint("(state = 'failed') = (problem IS NOT NULL)", name=op.f("ck_sweep_problem")),
        sa.CheckConstraint("(state = 'running') = (ended_at IS NULL)", name=op.f("ck_sweep_ended")),
        sa.CheckConstraint("state IN ('running', 'succeeded', 'failed', 'cancelled')", name=op.f("ck_sweep_state")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_sweep_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sweep")),
        sa.UniqueConstraint("tenant_id", "id", name=op.f("uq_sweep_tenant_id_id")),
    )
    op.create_index("ix_sweep_state", "sweep", ["state"])
    op.create_table(
        "trial",
        sa.Column("sweep_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text()),
        sa.Column("refusal", sa.JSON()),
        sa.CheckConstraint("(job_id IS NULL) = (refusal IS NOT NULL)", name=op.f("ck_trial_refusal")),
        sa.ForeignKeyConstraint(["tenant_id", "job_id"], ["job.tenant_id", "job.id"], name=op.f("fk_trial_tenant_id_job_id")),
        sa.ForeignKeyConstraint(["tenant_id", "sweep_id"], ["sweep.tenant_id", "sweep.id"], name=op.f("fk_trial_tenant_id_sweep_id")),
        sa.PrimaryKeyConstraint("sweep_id", "number", name=op.f("pk_trial")),
        sa.UniqueConstraint("job_id", name=op.f("uq_trial_job_id")),
    )
