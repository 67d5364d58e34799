"""A connection that breaks where a test says: before the n-th statement of a call, before a commit, or after it, with the answer lost."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, event

from db.session import Database, Unavailable

Kind = Literal["rolled back", "died", "reply lost"]


class Died(BaseException):
    """The process ended here: nobody catches it, and nothing is said to the database."""


@dataclass(frozen=True, slots=True)
class Fault:
    """`at` counts the writing statements of a call, commits among them; a lost reply waits for the commit that follows."""

    kind: Kind
    at: int


class Faulty(Database):
    """A database that fails as it is told to, once; `commits` says how many transactions of the call were kept."""

    def __init__(self, inner: Database) -> None:
        self._inner = inner
        self.directory = inner.directory
        self._fault: Fault | None = None
        self._statements = 0
        self.commits = 0

    def arm(self, fault: Fault | None) -> None:
        """From here on a call is counted anew, and fails where `fault` says."""
        self._fault, self._statements, self.commits = fault, 0, 0

    @property
    def dialect(self) -> str:
        return self._inner.dialect

    def read(self) -> AbstractContextManager[Connection]:
        return self._inner.read()

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        with self._inner.begin() as tx:

            def count(*_: Any) -> None:
                self._count(tx)

            event.listen(tx, "before_cursor_execute", count)
            yield tx
            self._count(tx)
        self.commits += 1
        if self._fault and self._fault.kind == "reply lost" and self._statements >= self._fault.at:
            self._fault = None
            raise Unavailable("the connection broke after the commit")

    def _count(self, tx: Connection) -> None:
        self._statements += 1
        if self._fault is None or self._fault.kind == "reply lost" or self._statements != self._fault.at:
            return
        kind, self._fault = self._fault.kind, None
        if kind == "died":
            tx.invalidate()  # the socket closes; the server rolls back
            raise Died
        raise Unavailable("the connection broke before the commit")
