"""What can go wrong, as one tree, and the exit codes that carry it out of a child process.

    RetortError
    ├── Refused     the user's fault: names the field, the reason and what to try
    │   └── NoTap   it names a place that a network does not have
    ├── Diverged    training met a loss that is not finite
    └── Corrupt     bytes that are not what their name says: the world's fault
        └── Unresumable   so is the checkpoint that the job was to go on from

This module imports no torch: the worker reads it.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self

EXIT_REFUSED = 10
"""The child refused the job for good; its last event says why."""
EXIT_DIVERGED = 11
"""The loss stopped being finite; its last event says where."""
EXIT_OUT_OF_MEMORY = 12
"""Memory is used up; the last event says of what, with the code "oom_gpu" or "oom_host". The job is not tried again unchanged: it is put in
quarantine and not failed, unlike 10, for it may be released to a larger worker."""
EXIT_NO_ROOM = 13
"""A disk is full; the last event says which. The job waits until there is room."""
EXIT_UNRESUMABLE = 14
"""The checkpoint that the job was to go on from cannot be read; the last event says why. The one before it may do."""
EXIT_YIELDED = 75
"""The child was asked to stop, kept a checkpoint and hands the job back."""
EXIT_ORPHANED = 99
"""The child's parent was already dead when the child started."""


_LONGEST = 1000
"""Characters of a reason: what a file says of itself may be quoted in it, and has any length."""


class RetortError(Exception):
    """The root of every error that Retort raises on purpose."""


class Refused(RetortError):
    """A request that cannot be carried out as it was made.

    `where` is a JSON pointer into what the user sent ("/methods/0/temperature"), `reason` says what is wrong with it,
    `hint` what to try, `code` is one word of the list in `db/states.py`. `others` is what else is wrong with the same request.
    """

    def __init__(self, where: str, reason: str, *, hint: str = "", code: str = "invalid_input", others: Sequence["Refused"] = ()) -> None:
        self.where = _plain(where)
        self.reason = _plain(reason)
        self.hint = _plain(hint)
        super().__init__(f"{self.where}: {self.reason}" if where else self.reason)
        self.code = code
        self.others = tuple(others)

    @property
    def all(self) -> tuple["Refused", ...]:
        """Everything that is wrong with the request, this first."""
        return (self, *self.others)

    def at(self, where: str) -> Self:
        """The same refusal of another place, alone."""
        return type(self)(where, self.reason, hint=self.hint, code=self.code)


class NoTap(Refused):
    """A tap that a network does not have, whatever else it is compared with."""


class Refusals:
    """Gathers what is wrong with a request, so that a person is told everything at once."""

    def __init__(self) -> None:
        self.found: list[Refused] = []

    @contextmanager
    def gather(self) -> Iterator[None]:
        """Keep a refusal of the block instead of letting it out. What was found already is not kept twice."""
        try:
            yield
        except Refused as refused:
            self.add(refused)

    def add(self, refused: Refused) -> None:
        """Keep a refusal, and those that it carries."""
        told = {(each.where, each.reason) for each in self.found}
        self.found += [each for each in refused.all if (each.where, each.reason) not in told]

    def check(self) -> None:
        """Raise all that was found, as the first one with `others`; nothing where nothing was."""
        if self.found:
            first, *others = self.found
            raise type(first)(first.where, first.reason, hint=first.hint, code=first.code, others=others) from first


class Diverged(RetortError):
    """A loss that is not finite, at one step of one fit."""


class Corrupt(RetortError):
    """Bytes whose digest or structure is not what was promised."""


class Unresumable(Corrupt):
    """A checkpoint that cannot be read, or is none of this job."""


def first_line(wrong: BaseException) -> str:
    """The first line of what a library says is wrong, or the name of its error; without Python's own words for classes and addresses."""
    line = next((line.strip() for line in str(wrong).splitlines() if line.strip()), type(wrong).__name__)
    return re.sub(r"<(?:class|function|module) '?([^ '>]*)[^>]*>", r"\1", re.sub(r" at 0x[0-9a-f]+", "", line))[:300]


def _plain(text: str) -> str:
    """A text that can be shown: what a file has put into it breaks no line, turns no direction and does not go on for pages."""
    shown = text if text.isprintable() else "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"
