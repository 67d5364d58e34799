"""Whether this worker still hears the doorbell: a consumer may hang while its process, its connection and its broker are well."""

import threading
import time
from collections.abc import Callable

_ASKED = 3
"""So many rings of its own may go unheard: another worker of the queue may have taken some."""


class Ear:
    """Suspicion begins with work that the worker's own look round found and nobody rang for; then it rings for itself, and listens.

    A ring that the broker does not take ends the suspicion: whose broker is away is not deaf, and a restart would not help it.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._lock = threading.Lock()
        self._suspected = False
        self._asked: list[float] = []

    def heard(self) -> None:
        """A ring came."""
        with self._lock:
            self._suspected = False
            self._asked.clear()

    def missed(self) -> None:
        """There was work, and no ring for it came."""
        with self._lock:
            self._suspected = True

    def is_deaf(self, ring: Callable[[], bool]) -> bool:
        """Whether several rings went unheard, over more than `patience` seconds; asked for again and again while the worker is idle.

        `ring` rings for this worker and says whether the broker took it.
        """
        if not self._suspected:
            return False
        if not ring():
            self.heard()
            return False
        with self._lock:
            if self._suspected:
                self._asked.append(time.monotonic())
            return len(self._asked) > _ASKED and self._asked[-1] - self._asked[0] > self._patience
