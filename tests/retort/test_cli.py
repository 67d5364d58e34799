import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from retort.cli import run
from retort.client import Client
from retort.commands.follow import line_of
from retort.render import jobs, preset
from retort.session import Session
from retort.values import Event
from tests.retort.stage import Answer, Request, script, stage

NOBODY = "http://127.0.0.1:1"
JOB = {"id": "job_1", "name": "small", "status": "running", "phase": "train", "is_terminal": False, "created_at": "2026-01-01T00:00:00Z"}


def test_nothing_listening_ends_with_3_and_says_what_to_try(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retort.connection.time.sleep", lambda seconds: None)
    assert run(["ls", "--url", NOBODY, "--key", "k"]) == 3
    told = capsys.readouterr()
    assert told.out == ""
    assert NOBODY in told.err
    assert "retort up" in told.err
    assert "Traceback" not in told.err


def test_a_refusal_ends_with_1_and_is_json_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    problem = {"detail": "there is no job job_9", "code": "not_found", "fault": "user"}
    with stage(script(Answer(404, json.dumps(problem).encode()))) as service:
        assert run(["get", "job_9", "--json", "--url", service.url, "--key", "k"]) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["error"]["code"] == "not_found"
    assert "there is no job job_9" in told.err


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["get"],
        ["ls", "--nonsense"],
        ["ls", "cats"],
        ["ls", "sweeps", "--status", "running"],
        ["sweep", "nowhere.yaml"],
        ["watch", "swp_1", "job_1"],
        ["submit", "--epochs", "0"],
        ["submit"],
        ["submit", "-f", "nowhere.yaml"],
        ["submit", "--student", "arc_1", "--method", "kd:4"],
        ["submit", "--student", "arc_1", "--dry-run", "--watch"],
        ["upload", "teacher", "nowhere", "--architecture", "{}"],
        ["upload", "teacher", "nowhere", "--architecture", "{}", "--mean", "0.5"],
        ["upload", "teacher", "nowhere", "--architecture", "{}", "--mean", "a", "--std", "1"],
        ["upload", "architecture", "{"],
        ["upload", "dataset", "digits.tar"],
        ["upload", "dataset", "digits.zip", "--size", "32"],
        ["taps", "ds_1"],
        ["cancel", "swp_1", "--graceful"],
        ["cancel", "swp_1", "--keep-nothing"],
        ["clone", "job_1", "-f", "nowhere.yaml"],
        ["pairs", "tch_1"],
        ["up", "--device", "tpu"],
        ["up", "--port", "70000"],
    ],
)
def test_wrong_use_ends_with_2_before_anything_is_sent(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    where = [] if words[0] in ("up", "nonsense") else ["--url", NOBODY, "--key", "k"]
    assert run([*words, *where]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err
    assert "Traceback" not in told.err


def test_every_command_takes_json_and_names_the_service_alike(capsys: pytest.CaptureFixture[str]) -> None:
    of_jobs = [
        "submit",
        "sweep",
        "ls",
        "get",
        "watch",
        "logs",
        "download",
        "export",
        "cancel",
        "pause",
        "resume",
        "release",
        "retry",
        "clone",
    ]
    for words in [*([each] for each in (*of_jobs, "methods", "presets", "taps", "pairs")), ["key", "make"], ["upload", "dataset"]]:
        assert run([*words, "--help"]) == 0
        told = capsys.readouterr().out
        assert all(option in told for option in ("--json", "--url", "--key", "--data")), words


def watched(statuses: list[str]) -> Callable[[Request], Answer]:
    left = list(statuses)

    def play(request: Request) -> Answer:
        status = left.pop(0) if len(left) > 1 else left[0]
        job = {**JOB, "status": status, "is_terminal": status in ("succeeded", "failed", "cancelled")}
        if status == "succeeded":
            job["result"] = {"test": {"accuracy": 0.915, "n": 600}}
        if status == "failed":
            job["problem"] = {
                "code": "diverged",
                "fault": "user",
                "where": "/recipe",
                "reason": "the loss is not finite",
                "hint": "a lower lr",
                "lines": ["nan"],
            }
        return Answer(200, json.dumps(job).encode())

    return play


def test_watching_ends_with_0_when_the_job_succeeded(capsys: pytest.CaptureFixture[str]) -> None:
    with stage(watched(["queued", "running", "succeeded"])) as service:
        assert run(["watch", "job_1", "--url", service.url, "--key", "k"]) == 0
    told = capsys.readouterr()
    assert "succeeded, test accuracy 0.9150" in told.out
    assert "small: queued" in told.err


def test_watching_ends_with_1_when_the_job_failed_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    with stage(watched(["running", "failed"])) as service:
        assert run(["watch", "job_1", "--url", service.url, "--key", "k"]) == 1
        told = capsys.readouterr().out
        assert all(word in told for word in ("the loss is not finite", "/recipe", "diverged", "yours", "a lower lr", "nan"))
        assert run(["watch", "job_1", "--json", "--url", service.url, "--key", "k"]) == 1
    assert json.loads(capsys.readouterr().out)["problem"]["code"] == "diverged"


@pytest.mark.parametrize("status", ["paused", "quarantined"])
def test_watching_does_not_wait_for_what_only_a_person_can_move(status: str, capsys: pytest.CaptureFixture[str]) -> None:
    with stage(watched([status])) as service:
        assert run(["watch", "job_1", "--url", service.url, "--key", "k"]) == 1
    assert {"paused": "retort resume job_1", "quarantined": "retort release job_1"}[status] in capsys.readouterr().out


def test_ctrl_c_while_watching_detaches_and_touches_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("retort.watch.time.sleep", interrupt)
    with stage(watched(["running"])) as service:
        assert run(["watch", "job_1", "--url", service.url, "--key", "k"]) == 130
    assert "retort watch job_1" in capsys.readouterr().err
    assert {request.method for request in service.requests} == {"GET"}


def test_the_key_is_never_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retort.connection.time.sleep", lambda seconds: None)
    run(["ls", "--url", NOBODY, "--key", "rt_secret", "--json"])
    told = capsys.readouterr()
    assert "rt_secret" not in told.out + told.err


def test_a_description_may_say_the_normalization_beside_the_architecture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As docs/demo/teacher.py writes teacher.json, and every job its config.json."""
    (tmp_path / "teacher.json").write_text('{"architecture": {"family": "mlp"}, "normalization": {"mean": [0.3], "std": [0.4]}}')
    (tmp_path / "teacher.safetensors").write_bytes(b"weights")
    sent = {"id": "upl_1", "purpose": "teacher", "filename": "f", "bytes": 7, "sha256": "0", "offset": 7, "status": "completed"}
    made = {"object": "teacher", "id": "tch_1", "name": "t", "status": "processing"}

    def play(request: Request) -> Answer:
        answer = made if request.path == "/v1/teachers" else {"data": [sent]} if request.method == "GET" else sent
        return Answer(200, json.dumps(answer).encode(), headers={"Upload-Offset": "0", "Upload-Complete": "?0"})

    words = ["upload", "teacher", str(tmp_path / "teacher.safetensors"), "--architecture", str(tmp_path / "teacher.json"), "--no-wait"]
    for more, normalization in (
        ([], {"mean": [0.3], "std": [0.4]}),
        (["--mean", "0", "--std", "1"], {"mean": [0.0], "std": [1.0]}),
        (["--no-normalization"], None),
    ):
        with stage(play) as service:
            assert run([*words, *more, "--url", service.url, "--key", "k"]) == 0, capsys.readouterr().err
        body = json.loads(service.requests[-1].body)
        assert (body["architecture"], body["normalization"]) == ({"family": "mlp"}, normalization)


def test_a_teacher_of_each_format_is_told_as_it_was_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    score = {"accuracy": 0.11, "n": 100, "dataset": "ds_1"}
    report = {"evaluation": score, "notes": ["no taps"], "warnings": ["guessing reaches 10.0%"]}
    sent = {"id": "upl_1", "purpose": "teacher", "filename": "f", "bytes": 7, "sha256": "0", "offset": 7, "status": "completed"}
    made = {"object": "teacher", "id": "tch_1", "name": "t", "status": "ready", "report": report}

    def play(request: Request) -> Answer:
        answer = made if request.path == "/v1/teachers" else {"data": [sent]} if request.method == "GET" else sent
        return Answer(200, json.dumps(answer).encode(), headers={"Upload-Offset": "0", "Upload-Complete": "?0"})

    for name, more, told in (
        ("t.pth", ["--select", "ema", "--rename", "net.=", "--architecture", "arc_1"], {
            "format": "torch", "weights": {"select": "ema", "rename": {"net.": ""}}, "architecture": "arc_1",
        }),
        ("t.onnx", ["--input", "3,32,32", "--labels", str(tmp_path / "labels.txt"), "--dataset", "ds_1"], {
            "format": "onnx", "input": [3, 32, 32], "labels": ["cat", "dog"], "dataset": "ds_1",
        }),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(b"weights")
        with stage(play) as service:
            where = ["--url", service.url, "--key", "k"]
            assert run(["upload", "teacher", str(tmp_path / name), *more, "--no-normalization", "--no-wait", *where]) == 0
        body = json.loads(service.requests[-1].body)
        assert body == {"upload": "upl_1", "normalization": None, "name": "t", **told}
    out = capsys.readouterr().out
    assert "accuracy 0.1100 on 100 test samples of ds_1" in out
    assert "note: no taps" in out
    assert "warning: guessing reaches 10.0%" in out


def test_a_job_without_a_name_shows_none(capsys: pytest.CaptureFixture[str]) -> None:
    job = {**JOB, "name": "", "status": "succeeded", "is_terminal": True, "result": {"test": {"accuracy": 0.5, "n": 2}}}
    with stage(script(Answer(200, json.dumps(job).encode()))) as service:
        where = ["--url", service.url, "--key", "k"]
        assert run(["watch", "job_1", *where]) == 0
        assert "job_1: succeeded" in capsys.readouterr().out
        assert run(["get", "job_1", *where]) == 0
        assert "name" not in capsys.readouterr().out


def test_a_wrong_parameter_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    detail = "the query parameter limit: too small"
    problem = {"detail": detail, "code": "invalid_input", "fault": "user", "errors": [{"pointer": "", "detail": detail}]}
    with stage(script(Answer(422, json.dumps(problem).encode()))) as service:
        assert run(["ls", "--url", service.url, "--key", "k"]) == 1
    assert capsys.readouterr().err.count("query parameter") == 1


def test_a_line_of_ls_is_one_line_on_a_narrow_terminal() -> None:
    running = {**JOB, "id": "job_" + "0" * 26, "name": "(baseline)", "progress": {"percent": 45.0}}
    done = {**running, "status": "succeeded", "is_terminal": True, "result": {"test": {"accuracy": 0.915, "n": 600}}}
    with stage(script(Answer(200, json.dumps({"data": [running, done], "has_more": False}).encode()))) as service:
        listed = list(Client(service.url, key="k").jobs.list())
    shown = Console(width=80, file=io.StringIO())
    shown.print(jobs(listed))
    lines = shown.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == 3
    assert "running 45 %" in lines[1]
    assert "succeeded" in lines[2]
    assert "0.9150 (n = 600)" in lines[2]


def test_a_paused_job_still_shows_how_far_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    paused = {**JOB, "status": "paused", "progress": {"percent": 15.0}}
    with stage(script(Answer(200, json.dumps(paused).encode()))) as service:
        assert run(["get", "job_1", "--url", service.url, "--key", "k"]) == 0
    assert "15 %" in capsys.readouterr().out


def test_lines_to_copy_are_not_folded_and_a_preset_s_rows_keep_their_indentation() -> None:
    long = {
        "name": "row",
        "note": "N.",
        "published": {"source": "word " * 30},
        "spec": {"optimizer": {f"{k}_weight_decay": 0.0005 for k in "abcdef"}},
    }
    shown = io.StringIO()
    Session(out=Console(width=80, file=shown)).answer(long, preset(long))
    text = shown.getvalue()
    assert "retort submit --preset row --teacher tch_… --student arc_… --dataset ds_…\n" in text
    assert all(line[0] in " ps" for line in text[text.index("published") : text.index("begin")].splitlines() if line)
    assert yaml.safe_load(text[text.index("published") : text.index("begin")]) == {field: long[field] for field in ("published", "spec")}


def test_the_history_of_a_job_says_what_it_was_asked_to_do() -> None:
    data = [{"state": "running", "desired": wish} for wish in ("run", "cancel")] + [{"state": "cancelled", "desired": "cancel"}]
    events = [{"id": k, "event": "job.status", "at": "", "data": each} for k, each in enumerate(data, 1)]
    assert [line.split("status ")[1] for event in events if (line := line_of(Event.of(event)))] == [
        "running",
        "running, asked to cancel",
        "cancelled",
    ]


PRESET = {
    "name": "row",
    "note": "What Heo et al. 2019 ran on CIFAR-10 (lr 0.1 vs. 0.01). Their table has 91.9. More.",
    "networks": {"teacher": {"family": "wrn", "depth": 16}, "student": {"family": "wrn", "depth": 10}},
    "published": {"accuracy": 0.919, "source": "table 2"},
    "spec": {"methods": [{"name": "kd", "temperature": 3}], "recipe": {"epochs": 80}},
}


def test_a_preset_is_listed_with_its_first_sentence_and_shown_with_its_row(capsys: pytest.CaptureFixture[str]) -> None:
    with stage(script(Answer(200, json.dumps({"data": [PRESET], "has_more": False}).encode()))) as service:
        where = ["--url", service.url, "--key", "k"]
        assert run(["presets", *where]) == 0
        _, line = capsys.readouterr().out.splitlines()
        assert line.split(maxsplit=1) == ["row", "What Heo et al. 2019 ran on CIFAR-10 (lr 0.1 vs. 0.01)."]
        assert run(["presets", "row", *where]) == 0
        told = capsys.readouterr().out
    assert "Their table has 91.9. More." in told
    document = yaml.safe_load(told[told.index("networks:") : told.index("begin with it")])
    assert document == {field: PRESET[field] for field in ("networks", "published", "spec")}
    assert "retort submit --preset row" in told


def test_a_method_is_shown_as_its_page(capsys: pytest.CaptureFixture[str]) -> None:
    text = "# `kd`\n\nOne *loss*:\n\n    L = T^2 * x\n\n## Cost\n\n| name | type |\n| --- | --- |\n| `T` | number |\n"
    with stage(script(Answer(200, json.dumps({"data": [{"name": "kd", "page": text}], "has_more": False}).encode()))) as service:
        assert run(["methods", "kd", "--url", service.url, "--key", "k"]) == 0
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    for line in ("kd", "One loss:", "L = T^2 * x", "Cost", "name type", "T number"):
        assert line.split() in told
