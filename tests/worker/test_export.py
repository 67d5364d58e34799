"""An export of a finished student, by a child that writes it down and says what came of each format."""

from db.assets import list_artifacts
from db.exports import create_export, list_exports
from tests.worker.lab import Lab


def test_an_export_is_worked_on_and_its_files_stand_with_the_students(lab: Lab) -> None:
    with lab.means() as means:
        source = lab.work(lab.submit(steps=1), means)
        weights = lab.blobs.put([b"weights"])
        task = {"toy": {"refuse": {"int8": "it agrees on 6 of 10"}}}
        job, _ = create_export(
            lab.database, lab.tenant, source, formats=["onnx", "int8"], task=task, blobs={"in/student.safetensors": weights}, max_queued=9
        )
        assert lab.work(job.id, means).state == "succeeded"
    made = {each.name: each for each in list_artifacts(lab.database, lab.tenant, source.id)}
    assert {name: each.job for name, each in made.items()} == {"model.safetensors": source.id, "model.onnx": job.id}
    assert b"".join(lab.blobs.get(made["model.onnx"].sha256)) == b"WEIGHTS"
    told = {each.format: (each.status, each.reason) for each in list_exports(lab.database, lab.tenant, source)}
    assert told == {"onnx": ("ready", None), "int8": ("rejected", "it agrees on 6 of 10")}
