"""A worker that shares a directory of large blobs with the API: datasets stay files, and what a job leaves goes into the database."""

from pathlib import Path

from db import assets
from db.blobs import Blobs
from db.life.submission import UPLOADED
from db.session import connect
from tests.worker.lab import Lab


def test_uploads_and_canonical_datasets_lie_in_the_directory_and_artifacts_in_the_database(database_url: str, tmp_path: Path) -> None:
    database = connect(database_url, directory=tmp_path / "blobs")
    lab = Lab(database, database_url=database_url, broker_url=f"filesystem://{tmp_path / 'broker'}", folder=tmp_path / "lab")
    large = Blobs(database, lab.tenant, large=True)
    task = {"kind": "inspect", "asset": "dataset", "toy": {}}
    sent = large.put([b"rows"])
    made = assets.create_asset(database, lab.tenant, kind="dataset", name="rows", request={}, task=task, blobs={UPLOADED: sent})
    with lab.means(blobs=tmp_path / "blobs") as means:
        assert lab.work(made.job, means).state == "succeeded"
        found = assets.get_asset(database, lab.tenant, made.id)
        assert found is not None
        assert found.blob is not None
        canonical = large.file(found.blob)
        assert canonical is not None
        assert canonical.read_bytes() == b"dataset rows"
        job = lab.submit(steps=3, blobs={"in/dataset": found.blob})
        assert lab.work(job, means).state == "succeeded"
        assert list(means.cache.folder.glob("??/*")) == []
    (artifact, *_) = assets.list_artifacts(database, lab.tenant, job)
    assert large.file(artifact.sha256) is None
    assert b"".join(large.get(artifact.sha256))
    database.close()
