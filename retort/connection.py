"""The line to the service: one httpx client with the key, the retries, and problem+json turned into `ApiError`."""

import ipaddress
import json
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from retort.errors import ApiError, Unreachable
from retort.version import __version__

_SAFE = frozenset({"GET", "HEAD", "PUT", "DELETE"})
_PASSING = frozenset({408, 423, 502, 503, 504})
_LONGEST_PAUSE = 30.0
_FIRST_CONTACT = 2


class Connection:
    """Requests to one service.

    A request that may be repeated (idempotent by its method, or `repeatable` because it carries an idempotency key) is
    tried again after a broken line or an answer like 503: after the service's own `Retry-After`, else after a pause that doubles,
    with jitter. Any other request is tried again only where it provably never left. A service that never answered is given up
    after three attempts: a person who mistyped an address, or forgot to start it, shall not wait.
    """

    def __init__(
        self, url: str, *, key: str, transport: httpx.BaseTransport | None = None, timeout: float = 30.0, retries: int = 6
    ) -> None:
        self.url = url.rstrip("/")
        self.retries = retries
        self._has_answered = False
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(
            base_url=self.url,
            headers={"User-Agent": f"retort/{__version__}", **headers},
            timeout=httpx.Timeout(timeout, connect=10.0),
            transport=transport,
            # A proxy named in the environment cannot reach this machine's own loopback.
            trust_env=not _is_loopback(self.url),
        )

    def close(self) -> None:
        """Give the sockets back."""
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        content: Callable[[], Iterator[bytes]] | None = None,
        repeatable: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """The JSON of the answer (None where it has no body). `content` makes the raw body anew for each attempt."""
        with self.open(
            method, path, body=body, params=params, headers=headers, content=content, repeatable=repeatable, timeout=timeout
        ) as response:
            raw = response.read()
            try:
                return json.loads(raw) if raw else None
            except ValueError as wrong:
                raise Unreachable(
                    f"{self.url} answered {method} {path} with something that is not JSON", url=self.url, hint="is this a Retort service?"
                ) from wrong

    @contextmanager
    def open(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        content: Callable[[], Iterator[bytes]] | None = None,
        repeatable: bool = False,
        timeout: float | None = None,
    ) -> Iterator[httpx.Response]:
        """A good answer whose body has not been read; errors and retries as for `request`."""
        repeatable = repeatable or method in _SAFE
        query = {name: value for name, value in (params or {}).items() if value is not None}
        for attempt in range(self.retries + 1):
            last = attempt == self.retries
            request = self._http.build_request(
                method,
                path,
                json=body,
                params=query,
                headers=dict(headers or {}),
                content=content() if content else None,
                timeout=timeout if timeout is not None else httpx.USE_CLIENT_DEFAULT,
            )
            try:
                response = self._http.send(request, stream=True)
            except httpx.InvalidURL as wrong:
                raise Unreachable(f"{self.url!r} is not the address of a service: {wrong}", url=self.url) from wrong
            except httpx.TransportError as broken:
                never_left = isinstance(broken, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
                hopeless = isinstance(broken, httpx.UnsupportedProtocol) or (attempt >= _FIRST_CONTACT and not self._has_answered)
                if last or hopeless or not (repeatable or never_left):
                    raise self._unreachable(broken) from broken
                time.sleep(pause(attempt))
                continue
            self._has_answered = True
            if response.is_success:
                try:
                    yield response
                except httpx.TransportError as broken:
                    raise self._unreachable(broken) from broken
                finally:
                    response.close()
                return
            try:
                refused = _problem(response)
            except httpx.TransportError as broken:
                raise self._unreachable(broken) from broken
            finally:
                response.close()
            asked = _retry_after(response)
            passing = response.status_code in _PASSING or (
                response.status_code == 409 and asked is not None and "Idempotency-Key" in request.headers
            )
            if last or not (repeatable and passing):
                raise refused
            time.sleep(pause(attempt, asked))

    def act(self, path: str, body: Any = None) -> Any:
        """The answer to a POST that may be repeated, because it carries a key by which the service knows it again."""
        return self.request("POST", path, body=body, headers={"Idempotency-Key": str(uuid.uuid4())}, repeatable=True)

    def pages(self, path: str, *, limit: int | None = None, **params: Any) -> Iterator[dict[str, Any]]:
        """The entries of a list, page after page, up to `limit`."""
        after: str | None = None
        left = limit
        while left is None or left > 0:
            size = 100 if left is None else min(left, 100)
            page = self.request("GET", path, params={"limit": size, "after": after, **params})
            yield from page["data"]
            after = page.get("next_cursor")
            if not page.get("has_more") or not after:
                return
            left = None if left is None else left - len(page["data"])

    def _unreachable(self, broken: Exception) -> Unreachable:
        reason = str(broken) or type(broken).__name__
        return Unreachable(
            f"cannot reach the service at {self.url}: {reason}", url=self.url, hint="is it running? `retort up` starts one on this machine"
        )


def pause(attempt: int, asked: float | None = None) -> float:
    """Seconds before the next attempt: what the service asked for, else 0.25 doubled each time up to 8; then up to a quarter more."""
    seconds = min(asked, _LONGEST_PAUSE) if asked is not None else min(0.25 * 2**attempt, 8.0)
    return seconds * (1 + random.random() / 4)


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return max(0.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None


def _problem(response: httpx.Response) -> ApiError:
    raw = response.read()
    try:
        document = json.loads(raw)
    except ValueError:
        document = None
    if isinstance(document, dict):
        return ApiError.of(response.status_code, document)
    return ApiError(status=response.status_code, title=response.reason_phrase, detail=raw[:300].decode(errors="replace").strip())


def _is_loopback(url: str) -> bool:
    try:
        host = httpx.URL(url).host
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except (ValueError, httpx.InvalidURL):
        return False
