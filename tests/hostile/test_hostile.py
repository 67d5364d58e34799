"""Hostile uploads, each read by a child of its own: nothing of them runs, none takes much memory or time, each is told what is wrong."""

import pickle
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hostile import architectures, archives, headers, images, onnx, pickles, tables
from tests.hostile.inputs import MLP, Input, faults, strays
from tests.hostile.reader import Outcome, Reader

CORPORA: dict[str, tuple[Callable[[str], Iterator[Input]], int]] = {
    "pickles": (pickles.inputs, 50),
    "headers": (headers.inputs, 30),
    "archives": (archives.inputs, 100),
    "images": (images.inputs, 40),
    "onnx": (onnx.inputs, 60),
    "tables": (tables.inputs, 60),
    "architectures": (architectures.inputs, 80),
}
"""Each corpus, and the least that it holds."""


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    with Reader() as opened:
        yield opened


def read(reader: Reader, folder: Path, item: Input) -> Outcome:
    """Read an input in a job folder within an otherwise empty one."""
    folder.mkdir()
    return reader.read(item.lay(folder / "job"), folder / "job")


@pytest.fixture(scope="module")
def idle(reader: Reader, tmp_path_factory: pytest.TempPathFactory) -> int:
    """The memory of a child that has nothing to read."""
    outcome = read(reader, tmp_path_factory.mktemp("idle") / "0", Input("nothing", "dataset", b"", {"format": "npz"}))
    assert outcome.refusal is not None
    assert outcome.deeds == ()
    return outcome.peak


@pytest.mark.parametrize("corpus", CORPORA)
def test_every_hostile_input_is_refused_by_name_or_harmless(reader: Reader, idle: int, tmp_path: Path, corpus: str) -> None:
    made, least = CORPORA[corpus]
    wrong, names, canary = dict[str, list[str]](), list[str](), tmp_path / "canary"
    for item in made(str(canary)):
        names.append(item.name)
        found = faults(read(reader, tmp_path / "one", item), idle) + strays(tmp_path / "one")
        if found:
            wrong[item.name] = found
        shutil.rmtree(tmp_path / "one")
    assert wrong == {}
    assert not canary.exists()
    assert len(set(names)) == len(names) >= least


def test_a_pickle_opened_without_care_does_what_it_says(tmp_path: Path) -> None:
    """The canary can sing, by each way that pickle knows: else its silence above would say nothing."""
    sung = 0
    for what, body in pickles.forms(str(tmp_path / "canary")).items():
        try:
            pickle.loads(b"\x80\x04" + body + b".")
        except Exception as wrong:
            assert what, wrong
        if (tmp_path / "canary").exists():
            sung += 1
            (tmp_path / "canary").rmdir()
    assert sung >= 8
