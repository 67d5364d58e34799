"""Hostile uploads, each read by a child of its own: nothing of them runs, none takes much memory or time, each is told what is wrong."""

import contextlib
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.errors import EXIT_REFUSED
from tests.core.folders import work
from tests.hostile import architectures, archives, headers, images, onnx, pickles, tables
from tests.hostile.inputs import Input, faults, strays
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
    for body in pickles.forms(str(tmp_path / "canary")).values():
        with contextlib.suppress(Exception):
            pickle.loads(b"\x80\x04" + body + b".")
        if (tmp_path / "canary").exists():
            sung += 1
            (tmp_path / "canary").rmdir()
    assert sung >= 8


def test_real_children_refuse_one_of_each_kind(tmp_path: Path) -> None:
    """The forks share what they import; here each is the process that a worker starts."""
    canary = tmp_path / "canary"
    chosen = {
        "zip: builtins.eval": pickles.inputs,
        "weights: a product of 2^64": headers.inputs,
        "outside: '/etc/passwd'": onnx.inputs,
    }
    for k, (name, made) in enumerate(chosen.items()):
        item = next(item for item in made(str(canary)) if item.name == name)
        folder = tmp_path / str(k)
        folder.mkdir()
        ended = work(item.lay(folder / "job"), folder / "job")
        assert (ended.code, ended.log) == (EXIT_REFUSED, ""), name
        assert ended.refusal.where.startswith("/")
        assert [stray for stray in strays(folder) if stray != "job/child.log"] == []
    assert not canary.exists()


def test_the_witness_sees_what_a_child_does(tmp_path: Path) -> None:
    """A child that writes elsewhere, starts a program, calls somebody and opens a pickle is told of, each time."""
    code = (
        "import os, pickle, socket, subprocess, sys; from pathlib import Path; from tests.hostile.reader import watch\n"
        "folder = Path(sys.argv[1]); watch(folder, os.open(folder / 'deeds', os.O_CREAT | os.O_WRONLY))\n"
        "open(folder / 'inside', 'w'); open(folder.parent / 'outside', 'w')\n"
        "os.mkdir(folder.parent / 'made'); os.system('true'); subprocess.run(['true']); os.environ['A'] = 'b'\n"
        "socket.socket().connect_ex(('127.0.0.1', 9)); pickle.loads(b'cposix\\ngetpid\\n.')\n"
    )
    (tmp_path / "job").mkdir()
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "job")], check=True)
    deeds = (tmp_path / "job" / "deeds").read_text()
    for each in ("outside", "os.mkdir", "os.system", "subprocess.Popen", "os.putenv", "socket.connect", "pickle.find_class"):
        assert each in deeds
    assert "inside" not in deeds
