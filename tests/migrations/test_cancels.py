"""Jobs of an older schema, and how a cancel of them is carried out."""

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.exc import IntegrityError

import migrations
from db.session import connect
from migrations.schema import upgrade


def test_jobs_that_were_there_before_are_cancelled_now_and_keep_their_checkpoint(empty_url: str) -> None:
    db = connect(empty_url)
    config = Config()
    config.set_main_option("script_location", migrations.__path__[0])
    with db.begin() as tx:
        config.attributes["connection"] = tx
        command.upgrade(config, "0002")
        tx.execute(sa.text("INSERT INTO tenant (id, name, created_at) VALUES ('ten_1', 'ours', 0)"))
        for state, desired, code in (("queued", "run", "NULL"), ("cancelled", "cancel", "'cancelled'")):
            columns = "id, tenant_id, kind, name, queue, priority, state, desired, code, run_after, spec, inputs, metadata, created_at"
            row = f"'{state}', 'ten_1', 'distil', '', 'any', 0, '{state}', '{desired}', {code}, 0, '{{}}', '{{}}', '{{}}', 0"
            tx.execute(sa.text(f"INSERT INTO job ({columns}) VALUES ({row})"))
    upgrade(db)
    with db.read() as tx:
        rows = tx.execute(sa.text("SELECT id, cancel_mode, cancel_keep FROM job ORDER BY id")).all()
    assert [tuple(row) for row in rows] == [("cancelled", "now", "checkpoint"), ("queued", "now", "checkpoint")]
    with pytest.raises(IntegrityError), db.begin() as tx:
        tx.execute(sa.text("UPDATE job SET cancel_keep = 'nothing' WHERE id = 'queued'"))
    db.close()
