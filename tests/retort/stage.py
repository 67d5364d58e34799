"""A service that says what a test wrote for it, over a real socket: for the failures that the real service does not have on request."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass
class Request:
    """What came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Answer:
    """What goes back: a body, or pieces of one without a declared length; `hang_up` breaks the line instead of ending it."""

    status: int = 200
    body: bytes | Iterable[bytes] = b""
    type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    hang_up: bool = False


@dataclass
class Stage:
    """The service's address and all that was asked of it."""

    url: str
    requests: list[Request] = field(default_factory=list)


@contextmanager
def stage(play: Callable[[Request], Answer]) -> Iterator[Stage]:
    """Serve what `play` answers to each request, on a free port."""
    here = Stage(url="")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = Request(self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            here.requests.append(request)
            answer = play(request)
            self.close_connection = True
            if answer.hang_up and not answer.body:
                return
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.type)
            self.send_header("Connection", "close")
            for name, value in answer.headers.items():
                self.send_header(name, value)
            whole = isinstance(answer.body, bytes)
            if whole and "Content-Length" not in answer.headers:
                self.send_header("Content-Length", str(len(answer.body)))  # type: ignore[arg-type]
            self.end_headers()
            if self.command == "HEAD":
                return
            for piece in [answer.body] if isinstance(answer.body, bytes) else answer.body:
                self.wfile.write(piece)
                self.wfile.flush()

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = handle_any

        def log_message(self, format: str, *args: object) -> None:
            """Tests are quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    here.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield here
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def script(*answers: Answer) -> Callable[[Request], Answer]:
    """The answers one after the other; the last one from then on."""
    left = list(answers)
    return lambda request: left.pop(0) if len(left) > 1 else left[0]
