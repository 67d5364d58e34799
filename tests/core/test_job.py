"""A job folder from start to end: what it leaves, and that a stop or a kill at any place changes nothing."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from core.checkpoints import Checkpoints
from core.errors import EXIT_NO_ROOM, EXIT_UNRESUMABLE, EXIT_YIELDED, Corrupt, Diverged, Refused
from core.events import Checkpointed, CheckpointFailed, Evaluated, Event, Exported, Phase, Result, Step, decode
from core.job import Job, distil
from core.runtime import Runtime
from core.wire import Stopped, Wire
from tests.core.folders import CONVOLUTIONS, NORMALIZATION, RUNTIME, STUDENT, Ended, digits, fill, start, weights_of, work

LONG: dict[str, Any] = {
    "recipe": {"epochs": 60, "batch_size": 32, "optimizer": {"name": "sgd", "lr": 0.05}, "augmentation": [{"name": "flip"}]}
}
EVERY_STEP: dict[str, Any] = {"checkpoint_seconds": 0}


@pytest.fixture(autouse=True)
def torch_as_it_was() -> Iterator[None]:
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]


class Recorded(Wire):
    """A line that ends in a list, and that hears a stop at the first event of which `at` is true."""

    def __init__(self, at: Callable[[Event], bool] = lambda event: False) -> None:
        super().__init__(os.open(os.devnull, os.O_WRONLY))
        self.at, self.events = at, list[Event]()

    def tell(self, event: Event) -> None:
        self.events.append(event)
        if self.at(event):
            self.stop.set()


def here(folder: Path, at: Callable[[Event], bool] = lambda event: False) -> list[Event]:
    """Carry out a folder in this process; Stopped where `at` asked for it."""
    task = json.loads((folder / "job.json").read_text())
    wire = Recorded(at)
    try:
        distil(folder, task, Runtime.model_validate(task["runtime"]), wire)
    finally:
        os.close(wire._out)
    return wire.events


def again(folder: Path, copy: Path, checkpoint: Path | None, runtime: Mapping[str, Any] | None = None) -> Path:
    """The same job in a fresh folder, from a checkpoint; how often it keeps one is not the job's and changes nothing."""
    shutil.copytree(folder / "in", copy / "in")
    (copy / "out").mkdir()
    task = json.loads((folder / "job.json").read_text())
    (copy / "job.json").write_text(json.dumps({**task, "runtime": {**RUNTIME, **(runtime or {})}}))
    if checkpoint is not None:
        shutil.copy(checkpoint, copy / "in" / "checkpoint.safetensors")
    return copy


def student(folder: Path) -> bytes:
    return (folder / "out" / "export" / "model.safetensors").read_bytes()


def newest(folder: Path) -> Path:
    return max((folder / "checkpoint").glob("*.safetensors"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """A long job that nobody disturbed, in a real child."""
    folder = fill(tmp_path_factory.mktemp("whole") / "job", **LONG)
    ended = work("run", folder)
    assert (ended.code, ended.log) == (0, "")
    return folder, ended


def read_until(child: Any, enough: Callable[[Event], bool]) -> list[Event]:
    events = []
    for line in child.stdout:
        events.append(decode(line.decode()))
        if enough(events[-1]):
            return events
    raise AssertionError("the child ended before it was disturbed")


def killed(child: Any) -> list[Event]:
    """What a child told before it died, after what was read of it: on a busy machine that is many steps."""
    child.send_signal(signal.SIGKILL)
    rest, _ = child.communicate()
    return [decode(line.decode()) for line in rest.splitlines(keepends=True) if line.endswith(b"\n")]


@pytest.mark.parametrize("done", [1, 137])
def test_a_child_that_was_killed_resumes_to_the_same_bytes(whole: tuple[Path, Ended], tmp_path: Path, done: int) -> None:
    folder = fill(tmp_path / "killed", EVERY_STEP, **LONG)
    child = start("run", folder)
    before = [*read_until(child, lambda event: isinstance(event, Checkpointed) and event.done >= done), *killed(child)]
    resumed = work("run", again(folder, tmp_path / "resumed", newest(folder)))
    assert (resumed.code, resumed.log) == (0, "")
    assert student(tmp_path / "resumed") == student(whole[0])
    told = Ended(0, before, "").steps
    assert whole[1].steps == {**told, **resumed.steps}
    assert all(whole[1].steps[number] == values for number, values in told.items())
    assert min(resumed.steps) > done
    assert resumed.repeatable == whole[1].repeatable


SUM: dict[str, Any] = {
    "networks": CONVOLUTIONS,
    "methods": [
        {"name": "fitnet", "epochs": 1},
        {"name": "ab", "epochs": 4, "variant": "official"},
        {"name": "fsp", "epochs": 1, "connectors": True, "lr": 0.01},
        {"name": "at"},
        {"name": "jacobian"},
        {"name": "bss"},
        {"name": "wasserstein", "epsilon": 0.01},
        {"name": "kd"},
    ],
}
"""Three transfer fits, one of them with a teacher whose statistics drift and a momentum that is emptied before step 18, and a training with
terms of all kinds: six steps an epoch."""


def test_a_sum_of_all_methods_killed_in_every_fit_ends_with_the_same_bytes(tmp_path: Path) -> None:
    undisturbed = fill(tmp_path / "whole", **SUM)
    whole = work("run", undisturbed)
    assert (whole.code, whole.log) == (0, "")
    assert {event.fit for event in whole.events if isinstance(event, Step)} == {0, 1, 2, 3}
    folder, told = fill(tmp_path / "part", EVERY_STEP, **SUM), dict[int, Mapping[str, float]]()
    for fit, step in enumerate([2, 17, 1, 8]):

        def due(event: Event, fit: int = fit, step: int = step) -> bool:
            return isinstance(event, Checkpointed) and (event.fit, event.step) >= (fit, step)

        child = start("run", folder)
        told |= Ended(0, [*read_until(child, due), *killed(child)], "").steps
        folder = again(folder, tmp_path / f"part {fit}", newest(folder), EVERY_STEP)
    last = work("run", folder)
    assert (last.code, last.log) == (0, "")
    assert student(folder) == student(undisturbed)
    assert {**told, **last.steps} == whole.steps
    assert last.repeatable == whole.repeatable
    assert last.result["terms"] == {"jacobian": {"form": "tangent"}, "wasserstein": {"form": "tangent"}}


def test_a_child_that_is_told_to_stop_keeps_a_checkpoint_and_resumes_to_the_same_bytes(whole: tuple[Path, Ended], tmp_path: Path) -> None:
    folder = fill(tmp_path / "stopped", **LONG)
    child = start("run", folder)
    before = read_until(child, lambda event: isinstance(event, Step) and event.done >= 40)
    rest, _ = child.communicate(b'{"command":"stop"}\n', timeout=60)
    events = before + [decode(line) for line in rest.decode().splitlines()]
    assert child.returncode == EXIT_YIELDED
    last = events[-1]
    assert isinstance(last, Checkpointed)
    assert (folder / last.path).stat().st_size == last.bytes
    resumed = work("run", again(folder, tmp_path / "resumed", folder / last.path))
    assert student(tmp_path / "resumed") == student(whole[0])
    assert min(resumed.steps) == last.done + 1


def test_a_sigterm_is_a_stop(tmp_path: Path) -> None:
    folder = fill(tmp_path / "job", **LONG)
    child = start("run", folder)
    read_until(child, lambda event: isinstance(event, Step))
    child.send_signal(signal.SIGTERM)
    out, _ = child.communicate(timeout=60)
    assert child.returncode == EXIT_YIELDED
    assert isinstance(decode(out.decode().splitlines()[-1]), Checkpointed)


def phase(name: str) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, Phase) and event.phase == name


@pytest.mark.parametrize(
    ("at", "resumes"),
    [
        (phase("staging"), False),
        (phase("train"), True),
        (lambda event: isinstance(event, Evaluated) and event.split == "validation" and event.epoch == 1, True),
        (phase("evaluate"), True),
        (lambda event: isinstance(event, Evaluated) and event.split == "test", True),
        (phase("export"), True),
    ],
    ids=["staging", "train", "validation", "evaluate", "tested", "export"],
)
def test_a_stop_is_seen_in_every_phase_and_nothing_is_lost(tmp_path: Path, at: Callable[[Event], bool], resumes: bool) -> None:
    undisturbed = fill(tmp_path / "undisturbed")
    here(undisturbed)
    folder = again(undisturbed, tmp_path / "stopped", None)
    with pytest.raises(Stopped):
        here(folder, at)
    assert not (folder / "out" / "export").exists()
    kept = sorted((folder / "checkpoint").glob("*"))
    assert bool(kept) == resumes
    resumed = again(folder, tmp_path / "resumed", kept[-1] if kept else None)
    here(resumed)
    assert student(resumed) == student(undisturbed)


@pytest.mark.parametrize("at", [phase("evaluate"), lambda event: isinstance(event, Evaluated) and event.split == "test", phase("export")])
def test_a_stop_after_training_leaves_an_averaged_student_as_it_was(tmp_path: Path, at: Callable[[Event], bool]) -> None:
    recipe = {"epochs": 2, "batch_size": 32, "optimizer": {"name": "sgd", "lr": 0.05}, "ema": 0.9}
    undisturbed = fill(tmp_path / "undisturbed", EVERY_STEP, recipe=recipe)
    here(undisturbed)
    exported = load_file(undisturbed / "out" / "export" / "model.safetensors")
    last = load_file(newest(undisturbed))
    assert all(torch.equal(last[f"ema/{name}"], tensor) for name, tensor in exported.items())
    assert not all(torch.equal(last[f"student/{name}"], tensor) for name, tensor in exported.items())
    folder = again(undisturbed, tmp_path / "stopped", None)
    with pytest.raises(Stopped):
        here(folder, at)
    resumed = again(folder, tmp_path / "resumed", newest(folder))
    here(resumed)
    assert student(resumed) == student(undisturbed)


def test_the_job_pins_its_threads_and_its_kernels(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    here(fill(tmp_path / "job", {"threads": 3}))
    assert torch.get_num_threads() == 3
    assert torch.are_deterministic_algorithms_enabled()


def test_what_a_job_leaves_is_what_it_told(tmp_path: Path) -> None:
    noise = {"name": "parameter_noise", "epsilons": [0.0, 0.1], "draws": 2}
    folder = fill(tmp_path / "job", evaluate=["accuracy", "agreement", "fgsm", noise, {"name": "boundary", "samples": 20}])
    events = here(folder)
    exported = [event for event in events if isinstance(event, Exported)]
    assert [event.format for event in exported] == ["safetensors", "card"]
    assert all((folder / file.path).stat().st_size == file.bytes for event in exported for file in event.files)
    config = json.loads((folder / "out" / "export" / "config.json").read_text())
    assert (config["architecture"]["family"], config["normalization"]) == ("mlp", NORMALIZATION)
    (test,) = (event for event in events if isinstance(event, Evaluated) and event.split == "test")
    assert {"accuracy", "loss", "n", "agreement", "teacher.accuracy"} <= set(test.values)
    (result,) = (event.values for event in events if isinstance(event, Result))
    assert {f"teacher.{name}": value for name, value in result["teacher"].items()} | dict(result["test"]) == test.values
    assert result["curves"] == {
        "student": {"fgsm": test.curves["fgsm"], "parameter_noise": test.curves["parameter_noise"]},
        "teacher": {"fgsm": test.curves["teacher.fgsm"], "parameter_noise": test.curves["teacher.parameter_noise"]},
    }
    assert json.loads((folder / "out" / "export" / "metrics.json").read_text())["curves"] == result["curves"]
    job = Job.open(folder, json.loads((folder / "job.json").read_text()))
    rows = job.data.split("test")
    x = torch.from_numpy(rows.x.copy()).permute(0, 3, 1, 2) / 255
    network = job.student.tapped(folder / "out" / "export" / "model.safetensors", (), where="/")
    with torch.no_grad(), network.quiet():
        hits = (network(x).logits.argmax(1).numpy() == rows.y).mean()
    assert test.values["accuracy"] == pytest.approx(hits)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"methods": [{"name": "kd", "temperature": 0}]}, "/methods/0/temperature"),
        ({"methods": [{"name": "kd", "heat": 1}]}, "/methods/0/heat"),
        ({"methods": [{"name": "kid"}]}, "/methods/0"),
        ({"methods": [{"temperature": 4.0}]}, "/methods/0"),
        ({"recipe": {"optimizer": {"name": "sgd", "lr": -1}}}, "/recipe/optimizer/lr"),
        ({"recipe": {"augmentation": [{"name": "crop", "padding": 0}]}}, "/recipe/augmentation/0/padding"),
        ({"recipe": {"task_weight": -1}}, "/recipe/task_weight"),
        ({"student": {}}, "/student/architecture"),
        ({"dataset": {"id": "ds_0", "take": {"total": 10**6}}}, "/dataset/take/total"),
    ],
)
def test_a_job_that_cannot_be_is_refused_at_its_field(tmp_path: Path, changes: dict[str, Any], where: str) -> None:
    with pytest.raises(Refused) as refused:
        here(fill(tmp_path / "job", **changes))
    assert refused.value.where.removesuffix("/name") == where


def test_the_seed_alone_decides_the_students_first_weights(tmp_path: Path) -> None:
    folder = fill(tmp_path / "job")
    task = json.loads((folder / "job.json").read_text())

    def first(seed: int) -> Mapping[str, Any]:
        torch.rand(3)
        job = Job.open(folder, {**task, "spec": {**task["spec"], "seed": seed}})
        return {name: tensor.tolist() for name, tensor in job.new_student().network.state_dict().items()}

    assert first(0) == first(0) != first(1)


def test_a_named_initialiser_draws_them_from_the_seed_too(tmp_path: Path) -> None:
    folder = fill(tmp_path / "job", student={"architecture": "arc_0", "weights": {"initialiser": "xavier"}})
    task = json.loads((folder / "job.json").read_text())
    one, same = (Job.open(folder, task).new_student().network.state_dict() for _ in range(2))
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    assert one["linear1.weight"].abs().max() > 64**-0.5  # beyond what torch itself would draw
    assert not one["linear1.bias"].any()


def test_given_weights_are_where_the_student_starts(tmp_path: Path) -> None:
    from core.artifacts import save_weights

    folder = fill(tmp_path / "job", methods=[], teacher=None)
    given = weights_of(STUDENT, 5)
    save_weights(folder / "in" / "student.safetensors", given)
    task = json.loads((folder / "job.json").read_text())
    state = Job.open(folder, task).new_student().network.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in given.items())
    save_weights(folder / "in" / "student.safetensors", {"w": torch.ones(1)})
    with pytest.raises(Refused) as refused:
        Job.open(folder, task).new_student()
    assert refused.value.where == "/student/weights"


def test_a_dataset_that_is_not_the_promised_one_is_no_fault_of_the_user(tmp_path: Path) -> None:
    folder = fill(tmp_path / "job")
    task = json.loads((folder / "job.json").read_text())
    task["dataset"]["mean"] = [0.5]
    with pytest.raises(Corrupt):
        Job.open(folder, task)


def test_the_last_two_checkpoints_are_kept_and_the_last_holds_the_student(tmp_path: Path) -> None:
    folder = fill(tmp_path / "job", EVERY_STEP)
    events = here(folder)
    told = [event for event in events if isinstance(event, Checkpointed)]
    assert {event.done for event in told} == set(range(1, 19))
    assert [path.name for path in sorted((folder / "checkpoint").iterdir())] == ["00000017.safetensors", "00000018.safetensors"]
    last, trained = load_file(newest(folder)), load_file(folder / "out" / "export" / "model.safetensors")
    assert all(torch.equal(last[f"student/{name}"], tensor) for name, tensor in trained.items())
    steps = [(event.done, isinstance(event, Step)) for event in events if isinstance(event, (Step, Checkpointed))]
    assert steps.index((5, True)) < steps.index((5, False)) < steps.index((6, True))


def test_during_training_no_checkpoint_is_taken_without_a_cause_and_a_command_is_one(tmp_path: Path) -> None:
    class Asked(Recorded):
        def tell(self, event: Event) -> None:
            super().tell(event)
            if isinstance(event, Step) and event.done == 7:
                self.obey(b'{"command":"checkpoint"}')

    folder = fill(tmp_path / "job")
    task = json.loads((folder / "job.json").read_text())
    wire = Asked()
    distil(folder, task, Runtime.model_validate(task["runtime"]), wire)
    assert [event.done for event in wire.events if isinstance(event, Checkpointed)] == [7, 18]  # and one after the last step


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_costs_a_checkpoint_and_not_the_job(tmp_path: Path) -> None:
    class Filling(Recorded):
        def tell(self, event: Event) -> None:
            super().tell(event)
            if isinstance(event, Step) and event.done == 3:
                (folder / "checkpoint" / "00000003.part").symlink_to("/dev/full")

    folder = fill(tmp_path / "job", EVERY_STEP)
    task = json.loads((folder / "job.json").read_text())
    wire = Filling()
    distil(folder, task, Runtime.model_validate(task["runtime"]), wire)
    kept = {event.done for event in wire.events if isinstance(event, Checkpointed)}
    assert kept == set(range(1, 19)) - {3}
    (failed,) = (event for event in wire.events if isinstance(event, CheckpointFailed))
    assert failed == CheckpointFailed(3, "the worker's disk is full: No space left on device")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_child_says_how_it_ended_where_the_disk_is_full_and_where_its_checkpoint_is_none(tmp_path: Path) -> None:
    folder = fill(tmp_path / "job")
    (folder / "out" / "export").mkdir(parents=True)
    (folder / "out" / "export" / "config.json").symlink_to("/dev/full")
    full = work("run", folder)
    assert (full.code, full.refusal.code) == (EXIT_NO_ROOM, "storage_full")
    assert "No space left on device" in full.refusal.reason
    (folder / "in" / "checkpoint.safetensors").write_bytes(b"no checkpoint")
    assert work("run", folder).code == EXIT_UNRESUMABLE


def test_a_format_that_this_machine_cannot_make_is_refused_before_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == "onnxruntime" else known(name))
    told = list[Event]()

    def heard(event: Event) -> bool:
        told.append(event)
        return False

    with pytest.raises(Refused, match="lacks onnxruntime") as refused:
        here(fill(tmp_path / "job", exports=["safetensors", "onnx"]), heard)
    assert refused.value.where == "/exports/1"
    assert told == [Phase("staging")]


def test_what_a_broken_write_left_is_removed_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "00000009.part").write_bytes(b"half")
    Checkpoints(tmp_path, Recorded(), seconds=60)
    assert list((tmp_path / "checkpoint").iterdir()) == []


def test_a_student_of_real_digits_learns_from_a_teacher_of_real_digits(tmp_path: Path) -> None:
    """The main job, small: a teacher trained by the same engine without a teacher, then a student with it."""
    recipe = {"epochs": 12, "batch_size": 64, "optimizer": {"name": "sgd", "lr": 0.1}}
    school = fill(tmp_path / "teacher", methods=[], teacher=None, dataset={"id": "ds_0", "validation": 0}, recipe=recipe)
    here(school)
    folder = fill(tmp_path / "student", dataset={"id": "ds_0", "validation": 0}, recipe=recipe)
    task = json.loads((folder / "job.json").read_text())
    task["teacher"]["architecture"] = STUDENT
    (folder / "job.json").write_text(json.dumps(task))
    shutil.copy(school / "out" / "export" / "model.safetensors", folder / "in" / "teacher.safetensors")
    (test,) = (event.values for event in here(folder) if isinstance(event, Evaluated) and event.split == "test")
    assert test["teacher.accuracy"] > 0.9
    assert test["accuracy"] > 0.9
    assert test["n"] == 359
    assert np.bincount(digits()[1]).min() > 170


def test_a_job_that_explodes_between_two_reports_keeps_no_checkpoint_that_is_not_finite(tmp_path: Path) -> None:
    recipe = {"epochs": 4, "batch_size": 2, "optimizer": {"name": "sgd", "lr": 100, "nesterov": False}, "schedule": {"name": "constant"}}
    folder = fill(tmp_path / "job", {**EVERY_STEP, "report_seconds": 1e9}, recipe=recipe)
    with pytest.raises(Diverged, match=r"in epoch 1 of 4 \(step \d+ of fit 0\)"):
        here(folder)
    kept = [load_file(path) for path in (folder / "checkpoint").glob("*.safetensors")]
    assert kept
    assert all(bool(torch.isfinite(tensor).all()) for state in kept for name, tensor in state.items() if name.startswith("student/"))


def test_nothing_that_happens_after_the_last_step_repeats_one(tmp_path: Path) -> None:
    """A child that is killed while it measures leaves the checkpoint from which only the measuring is done again."""
    long = {"name": "parameter_noise", "draws": 100, "epsilons": [i / 1000 for i in range(64)]}
    folder = fill(tmp_path / "killed", evaluate=["accuracy", long])
    child = start("run", folder)
    events = read_until(child, phase("evaluate"))
    (kept,) = (event for event in [*events, *read_until(child, lambda event: True)] if isinstance(event, Checkpointed))
    assert kept.done == 18
    child.kill()
    child.communicate()
    resumed = start("run", again(folder, tmp_path / "resumed", folder / kept.path))
    told = read_until(resumed, phase("evaluate"))
    resumed.send_signal(signal.SIGTERM)
    resumed.communicate(timeout=60)
    assert not any(isinstance(event, (Step, Evaluated)) for event in told)
    assert resumed.returncode == EXIT_YIELDED
