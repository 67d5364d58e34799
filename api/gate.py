"""What every request passes on its way in and out: an id, the limits of a JSON body, one line of log, and the last net for errors."""

import logging
import re
import time

import anyio.to_thread
import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.body import check_json
from api.problems import Problem, response
from db.ids import new_id

log = logging.getLogger(__name__)
access = structlog.get_logger("api.access")

_STREAMED = re.compile(r"/v1/uploads/[^/]+/content")
_QUIET = frozenset({"/livez", "/readyz"})
_LARGE = 64 * 1024


class Gate:
    """The outermost layer of the application; a body that passes is at most `max_body` bytes, `max_depth` deep, and JSON that every
    database can hold."""

    def __init__(self, app: ASGIApp, *, max_body: int, max_depth: int) -> None:
        self.app = app
        self.max_body = max_body
        self.max_depth = max_depth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = scope.setdefault("state", {})["request_id"] = new_id("req")
        started, status = time.perf_counter(), 0

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self.app(scope, await self._checked(scope, receive), tell)
            except Problem as refused:
                await response(refused, instance=scope["path"], request_id=request_id)(scope, receive, tell)
            except _Gone:
                pass
            except Exception:
                log.exception("a request failed: %s %s", scope["method"], scope["path"])
                if status:
                    raise  # half an answer is on its way: only breaking the connection says that it is not whole
                broken = Problem(500, "something in Retort broke", hint=f"the service's log says more under {request_id}")
                await response(broken, instance=scope["path"], request_id=request_id)(scope, receive, tell)
            finally:
                if scope["path"] not in _QUIET:
                    milliseconds = round(1000 * (time.perf_counter() - started), 1)
                    access.info("request", method=scope["method"], path=scope["path"], status=status, ms=milliseconds)

    async def _checked(self, scope: Scope, receive: Receive) -> Receive:
        headers = Headers(scope=scope)
        if "content-length" not in headers and "transfer-encoding" not in headers:
            return receive
        if scope["method"] in ("PUT", "PATCH") and _STREAMED.fullmatch(scope["path"]):
            return receive
        body = await self._read(headers, receive)
        if body:
            media = headers.get("content-type", "").partition(";")[0].strip().lower()
            if media != "application/json":
                raise Problem(415, f"a body is JSON here, not {media or 'without a type'}", hint="send Content-Type: application/json")
            if len(body) > _LARGE:
                await anyio.to_thread.run_sync(check_json, body, self.max_depth)
            else:
                check_json(body, self.max_depth)
        rest: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return rest.pop() if rest else await receive()

        return replay

    async def _read(self, headers: Headers, receive: Receive) -> bytes:
        declared = headers.get("content-length", "0")
        whole = bytearray()
        while True:
            if len(whole) > self.max_body or (declared.isdigit() and int(declared) > self.max_body):
                raise Problem(413, f"a body is at most {self.max_body} bytes here", headers={"Connection": "close"})
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            whole += message.get("body", b"")
            if not message.get("more_body", False):
                declared = "0"
                if len(whole) <= self.max_body:
                    return bytes(whole)


class _Gone(Exception):
    """The sender hung up before the body was whole: there is nobody to answer."""
