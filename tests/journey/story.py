"""From upload to verified download, through the commands that a person types: what every stack must do."""

import subprocess
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from docs.demo.demo import count_right
from retort import Client
from tests.journey.stacks import Stack
from tests.retort.service import processes_of, wait_until

KD = ("--method", "kd:temperature=4,weight=0.9", "--set", "recipe.task_weight=0.1", "--set", "recipe.batch_size=32")


class Story:
    """The journey; a stack is a subclass in a file of its own, with a fixture `stack` beside it."""

    def test_a_student_is_distilled_downloaded_and_found_to_be_what_the_service_said(
        self, stack: Stack, assets: dict[str, Any], made: Path, tmp_path: Path
    ) -> None:
        assert [assets[name]["status"] for name in ("teacher", "student", "dataset")] == ["ready"] * 3
        assert assets["dataset"]["report"]["counts"]["test"] == 600
        (tmp_path / "job.yaml").write_text(
            "name: digits\ndataset: {take: {total: 200}, validation: 0}\nrecipe: {optimizer: {name: sgd, lr: 5e-2}}\n"
        )
        measures = ("--evaluate", "fgsm:epsilons=[0, 0.05]", "--evaluate", "boundary:samples=32")
        ended = submit(stack, assets, "-f", str(tmp_path / "job.yaml"), "--epochs", "40", *measures, "--baseline", "--watch")
        job, baseline = ended["data"]
        assert [job["status"], baseline["status"]] == ["succeeded", "succeeded"]
        assert job["id"] in stack.retort("ls").stdout
        assert {each["id"] for each in stack.asked("ls")["data"]} >= {job["id"], baseline["id"]}
        assert stack.asked("get", job["id"])["result"] == job["result"]
        assert (
            stack.asked("submit", "--dry-run", "--student", assets["student"]["id"], "--dataset", assets["dataset"]["id"])["valid"] is True
        )

        files = stack.asked("download", job["id"], "--to", str(tmp_path / "student"))["files"]
        assert {Path(each["path"]).name for each in files} >= {"model.safetensors", "config.json", "README.md", "SHA256SUMS"}
        subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path / "student", check=True)
        with zipfile.ZipFile(stack.asked("download", job["id"], "--bundle", "--to", str(tmp_path))["bundle"]) as bundle:
            assert {name: bundle.read(name) for name in bundle.namelist()} == {
                path.relative_to(tmp_path / "student").as_posix(): path.read_bytes() for path in map(Path, (each["path"] for each in files))
            }
        right, n = count_right(tmp_path / "student" / "model.safetensors", made / "digits.npz", assets["normalization"])
        reported = job["result"]["test"]
        assert (right, n) == (round(reported["accuracy"] * reported["n"]), reported["n"])
        assert reported["accuracy"] > baseline["result"]["test"]["accuracy"]
        curves = job["result"]["curves"]
        assert curves["student"]["fgsm"]["accuracy"][0] == reported["accuracy"] > curves["student"]["fgsm"]["accuracy"][1]
        assert curves["teacher"]["fgsm"]["accuracy"][0] == job["result"]["teacher"]["accuracy"]
        assert reported["boundary_tried"] == 32
        assert "MagSim" in (tmp_path / "student" / "README.md").read_text()
        assert baseline["result"]["curves"].keys() == {"student"}
        assert "boundary_tried" not in baseline["result"]["test"]
        assert job["result"]["bytes"] == (tmp_path / "student" / "model.safetensors").stat().st_size
        state = load_file(tmp_path / "student" / "model.safetensors")
        assert (
            sum(tensor.numel() for name, tensor in state.items() if "running" not in name and "num_batches" not in name)
            == job["result"]["parameters"]
        )

        followed = stack.asked("logs", "-f", job["id"])["data"]
        assert [each["id"] for each in followed] == sorted({each["id"] for each in followed})
        assert followed[-1]["data"].get("state") == "succeeded"

    def test_a_job_is_cancelled_while_it_trains_and_its_process_is_gone(self, stack: Stack, assets: dict[str, Any]) -> None:
        job = submit(stack, assets, "--epochs", "100000", "--name", "endless")["id"]
        wait_for_progress(stack, job)
        assert any(job in words for words in processes_of(stack.folder).values())
        stack.asked("cancel", job)
        assert stack.asked("watch", job, code=1)["status"] == "cancelled"
        assert not any(job in words for words in processes_of(stack.folder).values())
        assert stack.asked("cancel", job, code=0)["status"] == "cancelled"
        refused = stack.asked("resume", job, code=1)["error"]
        assert (refused["status"], refused["fault"]) == (409, "user")

    def test_a_job_is_paused_and_goes_on_where_it_stopped(self, stack: Stack, assets: dict[str, Any]) -> None:
        job = submit(stack, assets, "--epochs", "400", "--take", "200", "--name", "in two parts")["id"]
        wait_for_progress(stack, job)
        stack.asked("pause", job)
        paused = stack.asked("watch", job, code=1)
        assert paused["status"] == "paused"
        stack.asked("resume", job)
        assert stack.asked("watch", job)["status"] == "succeeded"
        with Client(stack.url, key=stack.key) as client:
            steps = client.jobs.get(job).metrics()["columns"]["done"]
        assert steps == sorted(set(steps))

    def test_a_pickle_is_rejected_as_a_teacher_and_says_what_to_do(self, stack: Stack, made: Path, tmp_path: Path) -> None:
        torch.save(load_file(made / "teacher.safetensors"), tmp_path / "teacher.safetensors")
        architecture = '{"family": "convnet", "channels": [32, 64], "input": [1, 8, 8], "classes": 10}'
        words = ("upload", "teacher", str(tmp_path / "teacher.safetensors"), "--architecture", architecture, "--no-normalization")
        rejected = stack.asked(*words, code=1)
        assert rejected["status"] == "rejected"
        assert "torch.save" in rejected["problem"]["reason"] + rejected["problem"]["hint"]
        told = stack.retort(*words)
        assert told.returncode == 1
        assert "Traceback" not in told.stderr
        assert rejected["problem"]["reason"] in " ".join(told.stderr.split())

    def test_a_teacher_of_another_shape_is_rejected_by_the_name_of_the_weight(self, stack: Stack, made: Path, tmp_path: Path) -> None:
        weights = load_file(made / "teacher.safetensors")
        weights["fc.weight"] = weights["fc.weight"][:, :7].contiguous()
        save_file(weights, tmp_path / "narrow.safetensors")
        architecture = '{"family": "convnet", "channels": [32, 64], "input": [1, 8, 8], "classes": 10}'
        words = ("upload", "teacher", str(tmp_path / "narrow.safetensors"), "--architecture", architecture, "--no-normalization")
        assert "fc.weight" in stack.asked(*words, code=1)["problem"]["reason"]

    def test_a_wrong_parameter_is_refused_at_once_by_its_field(self, stack: Stack, assets: dict[str, Any]) -> None:
        refused = submit(stack, assets, "--set", "methods.0.temprature=3", code=1)["error"]
        assert refused["status"] == 422
        assert [each["pointer"] for each in refused["errors"]] == ["/methods/0/temprature"]
        assert "temperature" in refused["hint"]

    def test_a_preset_is_a_whole_job_but_for_the_ids(self, stack: Stack, assets: dict[str, Any]) -> None:
        preset = next(each for each in stack.asked("presets")["data"] if each["name"] == "kd_resnet20_cifar10")
        planned = submit(
            stack, assets, "--preset", preset["name"], "--dry-run", "--set", "recipe.augmentation=[]", "--set", "recipe.batch_size=64"
        )
        assert planned["plan"]["epochs"] == preset["spec"]["recipe"]["epochs"]

    def test_a_wrong_key_is_refused(self, stack: Stack) -> None:
        refused = stack.asked("ls", code=1, key="rt_00000000_" + "x" * 43)["error"]
        assert refused["status"] == 401

    def test_another_tenant_sees_nothing(self, stack: Stack, assets: dict[str, Any]) -> None:
        key = stack.stranger()
        assert stack.asked("ls", key=key)["data"] == []
        assert stack.asked("ls", "teachers", key=key)["data"] == []
        for id in (assets["teacher"]["id"], assets["dataset"]["id"], assets["teacher"]["job"]):
            assert stack.asked("get", id, code=1, key=key)["error"]["status"] == 404
        own = submit(stack, assets, "--epochs", "1", "--take", "50")["id"]
        for words in (("get", own), ("cancel", own), ("logs", own), ("watch", own), ("download", own)):
            assert stack.asked(*words, code=1, key=key)["error"]["status"] == 404
        assert stack.asked("watch", own)["status"] == "succeeded"

    def test_the_catalogue_says_how_to_use_a_method(self, stack: Stack) -> None:
        assert "kd" in {each["name"] for each in stack.asked("methods")["data"]}
        shown = stack.retort("methods", "kd").stdout
        assert "temperature" in shown
        assert "Hinton" in shown


def submit(stack: Stack, assets: dict[str, Any], *words: str, code: int = 0) -> Any:
    flags = [each for name in ("teacher", "student", "dataset") for each in (f"--{name}", assets[name]["id"])]
    return stack.asked("submit", *flags, *KD, *words, code=code)


def wait_for_progress(stack: Stack, job: str) -> None:
    with Client(stack.url, key=stack.key) as client:

        def is_training() -> bool:
            found = client.jobs.get(job)
            assert not found.is_terminal, found.raw
            return found.phase == "train" and bool(found.progress)

        wait_until(is_training)
