"""The processes that load what was exported: what they find, and that whatever a file does to its process is only its own affair."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from core.export import fresh
from core.export.fresh import Subject, examine

X = np.arange(30, dtype=np.float32).reshape(10, 3)
LOGITS = np.stack([X[:, 0], X[:, 1] - 0.5, X[:, 2] - 3], axis=1)
"""The second class is the largest of three everywhere."""
SAME = "def predict(x):\n    import numpy\n    return numpy.stack([x[:, 0], x[:, 1] - 0.5, x[:, 2] - 3], axis=1)\n"


def found(
    folder: Path,
    *lines: str,
    y: list[int] | None = None,
    present: list[int] | None = None,
    look: Callable[[str], None] = lambda doing: None,
) -> list[dict[str, object]]:
    """What was found of each piece of lines, in order."""
    held = folder / "held.safetensors"
    save_file({"x": X, "y": np.array([-1] * 10 if y is None else y), "logits": LOGITS}, held)
    subjects = [Subject(str(k), str(folder), text, "numpy") for k, text in enumerate(lines)]
    answers = examine(subjects, held, folder, threads=1, present=present, look=look)
    assert set(answers) == {subject.name for subject in subjects}
    return [dict(answers[subject.name]) for subject in subjects]


def test_answers_are_compared_one_by_one(tmp_path: Path) -> None:
    # The first two inputs get another class, one of them rightly so; the largest logit is that of the last input's second class, 27.5.
    other = SAME.replace("return ", "y = ") + "    y[x[:, 0] < 6, 0] += 2\n    return y\n"
    same, apart = found(tmp_path, SAME, other, y=[0, 1, 1, 1, 1, 1, 1, 1, 2, -1])
    assert {key: same[key] for key in ("finite", "compared", "max_abs_diff", "largest_logit", "same")} == {
        "finite": True, "compared": 10, "max_abs_diff": 0.0, "largest_logit": 27.5, "same": 10,
    }  # fmt: skip
    assert (same["labelled"], same["hits"], same["student_hits"]) == (9, 7, 7)
    assert (apart["max_abs_diff"], apart["same"], apart["hits"], apart["student_hits"]) == (2.0, 8, 7, 7)


def test_classes_that_were_not_chosen_are_no_answers(tmp_path: Path) -> None:
    (among,) = found(tmp_path, SAME.replace("x[:, 1] - 0.5", "x[:, 1] * 0 - 99"), present=[0, 2])
    assert among["same"] == 10


def test_without_labels_there_is_no_accuracy(tmp_path: Path) -> None:
    (unlabelled,) = found(tmp_path, SAME)
    assert not {"labelled", "hits", "student_hits"} & unlabelled.keys()


def test_values_that_are_not_finite_are_told_as_that(tmp_path: Path) -> None:
    (wild,) = found(tmp_path, SAME.replace("x[:, 0],", "x[:, 0] / 0,"))
    assert (wild["finite"], wild["max_abs_diff"]) == (False, None)


def test_lines_that_fail_kill_or_answer_in_another_shape_spoil_nothing_but_themselves(tmp_path: Path) -> None:
    raises = "raise ValueError('this is no model')"
    dies = "import os\nos.kill(os.getpid(), 11)"
    narrow = "def predict(x):\n    return x[:, :2]\n"
    failed, dead, shape, whole = found(tmp_path, raises, dies, narrow, SAME)
    assert failed == {"error": "ValueError: this is no model"}
    assert dead == {"error": "the process that loaded it was ended by signal 11"}
    assert shape == {"error": "ValueError: it gives logits of shape (10, 2), the student (10, 3)"}
    assert whole["same"] == 10


def test_a_file_that_takes_for_ever_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fresh, "_SECONDS", 2)
    hung, whole = found(tmp_path, "import time\ntime.sleep(1000)", SAME)
    assert hung == {"error": "the process that loaded it needed more than 2 seconds"}
    assert whole["same"] == 10


def test_it_knows_nothing_of_the_engine_and_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://secret")
    nosy = """
import os, sys
assert not [name for name in sys.modules if name.split(".")[0] == "core"]
assert "DATABASE_URL" not in os.environ
assert os.environ["OMP_NUM_THREADS"] == "1"
assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
"""
    (whole,) = found(tmp_path, nosy + SAME)
    assert whole.get("same") == 10, whole


def test_a_stop_ends_the_process_that_is_at_work(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(doing: str) -> None:
        if (tmp_path / "pid").exists():
            raise Stopped

    with pytest.raises(Stopped):
        found(tmp_path, "import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(1000)", look=stop)
    text = (tmp_path / "pid").read_text()
    if text:  # the file is there before its content
        with pytest.raises(ProcessLookupError):
            os.kill(int(text), 0)
