"""What every command has in hand: the service it talks to, and how it answers, as text for a person or as one JSON document."""

import functools
import inspect
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec

import typer
from rich.console import Console, RenderableType

from retort.client import Client
from retort.errors import Misused, Unreachable

P = ParamSpec("P")

DEFAULT_FOLDER = Path("retort-data")


def console(*, stderr: bool = False) -> Console:
    """A console that takes text as it is; what goes into a pipe is not folded at 80 columns."""
    wide = None if (sys.stderr if stderr else sys.stdout).isatty() else 200
    return Console(stderr=stderr, markup=False, highlight=False, width=wide, emoji=False)


@dataclass(slots=True)
class Session:
    """One call of the command. The answer goes to standard output, everything else to standard error."""

    url: str | None = None
    key: str | None = None
    data: Path | None = None
    json: bool = False
    out: Console = field(default_factory=console)
    err: Console = field(default_factory=lambda: console(stderr=True))

    def answer(self, document: Any, shown: RenderableType) -> None:
        """The command's one answer: the document with `--json`, else what a person reads."""
        if self.json:
            self.out.out(json.dumps(document, indent=2 if self.out.is_terminal else None, ensure_ascii=False), highlight=False)
            self.out.file.flush()
        else:
            self.out.print(shown, crop=False)  # a line to copy may be longer than the terminal is wide

    def say(self, shown: RenderableType) -> None:
        """Something by the way."""
        self.err.print(shown)

    def client(self) -> Client:
        """The service that the options, the environment or a data folder name."""
        url, key = find_service(self.url, self.key, self.data)
        return Client(url, key=key)


def data_folder(given: Path | None) -> Path:
    """The folder of a service on this machine: as given, else RETORT_DATA, else ./retort-data."""
    return given or Path(os.environ.get("RETORT_DATA") or DEFAULT_FOLDER)


def find_service(url: str | None, key: str | None, data: Path | None) -> tuple[str, str]:
    """Address and key: the options, else RETORT_URL and RETORT_API_KEY, else the data folder's service.json.

    A key from a folder goes only to the address in the same folder. `Unreachable` where no service is known.
    """
    if data is None:
        url = url or os.environ.get("RETORT_URL")
        key = key or os.environ.get("RETORT_API_KEY")
    if url and key:
        return url, key
    file = data_folder(data) / "service.json"
    try:
        known = json.loads(file.read_text())
        known_url, known_key = str(known["url"]), str(known["key"])
    except FileNotFoundError:
        known_url = known_key = ""
    except PermissionError as wrong:
        raise Misused(f"cannot read {file}: it belongs to someone else", hint="use --url and --key") from wrong
    except (OSError, ValueError, KeyError, TypeError) as wrong:
        raise Misused(f"cannot use {file}: {wrong}", hint="`retort up` writes it anew, or use --url and --key") from wrong
    if url and url.rstrip("/") != known_url.rstrip("/"):
        raise Misused(f"no key for {url}", hint="give --key, or set RETORT_API_KEY")
    if not known_url:
        raise Unreachable(
            f"no service is known: there is no {file}",
            hint="start one with `retort up`, or name one with --url and --key, RETORT_URL and RETORT_API_KEY, or --data DIR",
        )
    return url or known_url, key or known_key


def connected(command: Callable[Concatenate[Session, P], None]) -> Callable[P, None]:
    """A command with the options that every command has; typer reads them from the signature that this builds."""

    @functools.wraps(command)
    def run(*args: P.args, **options: P.kwargs) -> None:
        common = {name: options.pop(name) for name in _COMMON}
        command(Session(**common), *args, **options)  # type: ignore[arg-type]

    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in _COMMON.items()
    ]
    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own] + shared
    run.__signature__ = inspect.Signature(parameters, return_annotation=None)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


_PANEL = "Which service, and how to answer"
_COMMON: dict[str, tuple[Any, Any]] = {
    "url": (Annotated[str | None, typer.Option(help="The service's address.", show_default="RETORT_URL", rich_help_panel=_PANEL)], None),
    "key": (Annotated[str | None, typer.Option(help="An API key.", show_default="RETORT_API_KEY", rich_help_panel=_PANEL)], None),
    "data": (
        Annotated[Path | None, typer.Option(help="The folder of a `retort up`.", show_default="RETORT_DATA", rich_help_panel=_PANEL)],
        None,
    ),
    "json": (
        Annotated[bool, typer.Option("--json", help="Answer with one JSON document on standard output.", rich_help_panel=_PANEL)],
        False,
    ),
}
