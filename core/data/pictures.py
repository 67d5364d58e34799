"""Many image files to one dataset, in one pass: decoded in a few threads, written in their order, broken ones left out and named."""

import math
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import groupby, islice
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from core.data.canonical import Writer
from core.data.image import Broken, Model, check_size, pixels
from core.data.labels import Division
from core.data.report import MAX_NAME, BrokenFile, DatasetReport
from core.errors import Refused

MAX_GROWTH = 1000
"""A dataset that takes this many times the bytes of its upload, and more than `_HONEST`, is a bomb: flat images pack without end."""
_HONEST = 256 << 20
_BROKEN = 100
"""One image in so many may be broken."""
_TOGETHER = 64
_TOGETHER_BYTES = 4 << 20

Pixels = NDArray[np.uint8]
Outcome = Pixels | Broken


class Album(Protocol):
    """Image files in an order: image i goes to the split `splits[i]`, `name(i)` tells it to people, `read` gives all their bytes."""

    @property
    def splits(self) -> Sequence[str]: ...
    def name(self, i: int) -> str: ...
    def read(self) -> Iterator[bytes]: ...


class _Coloured(Exception):
    """An image in colour came after grey ones."""


def convert(
    album: Album,
    division: Division,
    out: Path,
    heed: Callable[[], None],
    *,
    class_names: tuple[str, ...],
    size: tuple[int, int] | None,
    packed: int,
) -> DatasetReport:
    """Write an album, labelled by `division`, in canonical form at `out`. `packed` is the number of bytes that hold it.

    Grey images stay one channel where all are grey, else all become RGB. Up to one image in a hundred may be broken, and is left out.
    Raises Refused for more, for images of different sizes where none is asked for, and for what `pixels` refuses.
    """
    check_size(size)
    with warnings.catch_warnings():  # here and not in each thread: the filters are the whole process's
        warnings.simplefilter("ignore")
        try:
            return _Pass(album, division, heed, size, colour=False).write(out, class_names, packed)
        except _Coloured:  # rare, and known after a part of the work: begin again
            return _Pass(album, division, heed, size, colour=True).write(out, class_names, packed)


class _Pass:
    """One reading of an album. With `colour` all becomes RGB, else what the first sound image is; `_Coloured` says that this was wrong."""

    def __init__(self, album: Album, division: Division, heed: Callable[[], None], size: tuple[int, int] | None, *, colour: bool) -> None:
        self._album, self._division, self._heed, self._size, self._colour = album, division, heed, size, colour
        self._broken: dict[int, str] = {}
        self._grey = 0

    def write(self, out: Path, class_names: tuple[str, ...], packed: int) -> DatasetReport:
        files = enumerate(self._album.read())
        at, first = self._first_sound(files)
        height, width, channels = first.shape
        sample = (height, width, 3 if self._colour else channels)
        self._check_growth(sample, packed)
        model = Model(self._album.name(at), height, width)
        with (
            Writer(out, sample=sample, dtype="uint8", labels=self._division.labels, class_names=class_names) as writer,
            closing(self._decoded(files, model)) as rest,
        ):
            for i in range(at):
                writer.omit(self._album.splits[i])
            self._append(writer, [(at, first)], sample)
            for outcomes in rest:
                self._heed()
                self._append(writer, outcomes, sample)
            first_broken = [
                BrokenFile(name=self._album.name(i)[:MAX_NAME], reason=reason[:MAX_NAME]) for i, reason in islice(self._broken.items(), 20)
            ]
            return writer.finish(notes=self._notes(sample), broken=first_broken, name=self._names())

    def _first_sound(self, files: Iterator[tuple[int, bytes]]) -> tuple[int, Pixels]:
        for i, data in files:
            self._heed()
            outcome = self._outcome(i, data, None)
            if not isinstance(outcome, Broken):
                return i, outcome
            self._count_broken(i, outcome)
        raise Refused("/upload", "there is no image")

    def _outcome(self, i: int, data: bytes, like: Model | None) -> Outcome:
        try:
            return pixels(data, self._album.name(i), self._size, like)
        except Broken as broken:
            return broken

    def _decoded(self, files: Iterator[tuple[int, bytes]], model: Model) -> Generator[list[tuple[int, Outcome]], None, None]:
        """The outcomes of all files in order, some at a time; the next ones are decoded meanwhile."""
        threads = torch.get_num_threads()
        together = max(1, min(_TOGETHER, _TOGETHER_BYTES // (3 * model.height * model.width)))

        def decode(part: list[tuple[int, bytes]]) -> list[tuple[int, Outcome]]:
            return [(i, self._outcome(i, data, model)) for i, data in part]

        under_way: deque[Future[list[tuple[int, Outcome]]]] = deque()
        pool = ThreadPoolExecutor(threads)
        try:
            for part in _parts(files, together):
                under_way.append(pool.submit(decode, part))
                if len(under_way) > threads:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _append(self, writer: Writer, outcomes: list[tuple[int, Outcome]], sample: tuple[int, ...]) -> None:
        for (split, sound), run in groupby(outcomes, lambda pair: (self._album.splits[pair[0]], not isinstance(pair[1], Broken))):
            images = []
            for i, outcome in run:
                if isinstance(outcome, Broken):
                    self._count_broken(i, outcome)
                    writer.omit(split)
                    continue
                self._grey += outcome.shape[2] == 1
                if outcome.shape[2] > sample[2]:
                    raise _Coloured
                images.append(np.broadcast_to(outcome, sample))
            if sound:
                writer.append(split, np.stack(images))

    def _count_broken(self, i: int, broken: Broken) -> None:
        self._broken[i] = str(broken)
        most = len(self._album.splits) // _BROKEN
        if len(self._broken) > most:
            number, reason = next(iter(self._broken.items()))
            others = f"; with it more than {most} of {len(self._album.splits):,} images are" if most else ""
            raise Refused(
                "/upload", f'the image "{self._album.name(number)}" is broken: {reason}{others}', hint="replace it or leave it out"
            )

    def _check_growth(self, sample: tuple[int, ...], packed: int) -> None:
        count = len(self._album.splits)
        unpacked = count * math.prod(sample)
        if unpacked > _HONEST and unpacked > MAX_GROWTH * packed:
            raise Refused(
                "/upload",
                f"{count:,} images in {packed:,} bytes would unpack to {unpacked:,} bytes, more than can be honest data",
                hint='smaller images, or a smaller "size"',
            )

    def _notes(self, sample: tuple[int, ...]) -> tuple[str, ...]:
        notes = list(self._division.notes)
        if self._size is not None:
            notes.append(f"Images were scaled to {self._size[1]}×{self._size[0]} pixels where they had another size.")
        if sample[2] == 3 and self._grey:
            notes.append(f"{self._grey} of {len(self._album.splits) - len(self._broken)} images are grey; all were made RGB.")
        if self._broken:
            notes.append(f"{len(self._broken)} of {len(self._album.splits)} images are broken and were left out.")
        return tuple(notes)

    def _names(self) -> Callable[[str, int], str]:
        """Tell the rows of the splits, as they were written, by the names of their files."""
        numbers: dict[str, list[int]] = {}
        for i, split in enumerate(self._album.splits):
            if i not in self._broken:
                numbers.setdefault(split, []).append(i)
        return lambda split, row: self._album.name(numbers[split][row])


def _parts(files: Iterator[tuple[int, bytes]], together: int) -> Iterator[list[tuple[int, bytes]]]:
    """The files a few at a time: at most `together`, and of a few megabytes before the last of them."""
    part: list[tuple[int, bytes]] = []
    held = 0
    for i, data in files:
        part.append((i, data))
        held += len(data)
        if len(part) == together or held > _TOGETHER_BYTES:
            yield part
            part, held = [], 0
    if part:
        yield part
