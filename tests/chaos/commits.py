"""What a PostgreSQL client says on its connection, read as it goes by: the transactions it commits, each with its statements and values.

The messages are those of the protocol's version 3 (PostgreSQL's manual, "Message Formats"): before the session begins a length and a
body; then a letter, a length and a body. Only the client's side is read, and only unencrypted.
"""

_SSL, _GSS, _CANCEL = 80877103, 80877104, 80877102


class Commits:
    """One connection's reader."""

    def __init__(self) -> None:
        self._rest = b""
        self._begun = False
        self._prepared: dict[bytes, bytes] = {}
        self._said = b""

    def read(self, data: bytes) -> list[bytes]:
        """What was said in each transaction whose COMMIT is complete with these bytes."""
        self._rest += data
        committed = []
        while message := self._next():
            kind, body = message
            statement = self._statement(kind, body)
            if statement.strip(b"; \n").upper() == b"COMMIT":
                committed.append(self._said)
                self._said = b""
            elif statement.strip(b"; \n").upper() in (b"BEGIN", b"ROLLBACK"):
                self._said = b""
            else:
                self._said += statement + body
        return committed

    def _next(self) -> tuple[bytes, bytes] | None:
        head = 1 if self._begun else 0
        if len(self._rest) < head + 4:
            return None
        length = int.from_bytes(self._rest[head : head + 4])
        if len(self._rest) < head + length:
            return None
        kind, body = self._rest[:head], self._rest[head + 4 : head + length]
        self._rest = self._rest[head + length :]
        if not self._begun:
            self._begun = int.from_bytes(body[:4]) not in (_SSL, _GSS, _CANCEL)
            return b"startup", b""
        return kind, body

    def _statement(self, kind: bytes, body: bytes) -> bytes:
        """The SQL of a simple query; of a Bind that of the statement it names, which a Parse gave earlier; else nothing."""
        if kind == b"Q":
            return body.rstrip(b"\0")
        if kind == b"P":
            name, sql, _ = body.split(b"\0", 2)
            self._prepared[name] = sql
        if kind == b"B":
            _, name, _ = body.split(b"\0", 2)
            return self._prepared.get(name, b"")
        return b""
