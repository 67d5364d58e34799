"""The embedded broker: Celery's filesystem transport, with messages and tables that appear whole or not at all.

As kombu has it, a file is created first and written afterwards. A worker that looks in between takes an empty message, and ends:
seen once in some fifty wakes beside a busy processor.
"""

import logging
import uuid
from pathlib import Path
from queue import Empty
from time import monotonic_ns
from typing import Any

from kombu.transport import filesystem
from kombu.utils.json import dumps

log = logging.getLogger(__name__)


class Channel(filesystem.Channel):  # type: ignore[misc]  # kombu has no types
    """A channel that writes aside and renames; the folders of a transport lie on one filesystem."""

    def _put(self, queue: str, payload: dict[str, Any], **_: Any) -> None:
        # The time first: messages are read in the order of their names.
        self._appear(Path(self.data_folder_out) / f"{monotonic_ns():020d}_{uuid.uuid4().hex}.{queue}.msg", dumps(payload))

    def _get(self, queue: str) -> Any:
        try:
            return super()._get(queue)
        except ValueError as broken:
            log.warning("a message that nobody can read is dropped, the work is in the database: %s", broken)
            raise Empty from None

    def _queue_bind(self, exchange: str, routing_key: str | None, pattern: str | None, queue: str | None) -> None:
        table = self._exchange_file(exchange)
        if not table.exists():
            table.parent.mkdir(exist_ok=True)
            self._appear(table, dumps([(routing_key or "", pattern or "", queue or "")]))
        super()._queue_bind(exchange, routing_key, pattern, queue)

    def _appear(self, file: Path, text: str) -> None:
        part = self.control_folder / f"{uuid.uuid4().hex}.part"
        part.write_text(text)
        part.replace(file)


class Transport(filesystem.Transport):  # type: ignore[misc]
    """What Celery is told to use instead of "filesystem"."""

    Channel = Channel
