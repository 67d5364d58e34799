"""The command `retort`: its commands, and how an error becomes words and an exit code.

0 all went well; 1 the service refused, a job failed, or `retort up` lost a part; 2 the command was used wrongly; 3 the service
cannot be reached; 130 Ctrl-C.
"""

import json
import sys
from typing import Annotated

import typer

from retort import render
from retort.commands import catalogue, files, follow, jobs, service, sweeps, taps, upload
from retort.errors import ApiError, Misused, RetortError, Unreachable
from retort.session import console
from retort.version import __version__

REFUSED, MISUSED, UNREACHABLE, INTERRUPTED = 1, 2, 3, 130

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Distil a large network into a small one: upload a teacher, a student and a dataset, submit, watch, download.",
)


def _version(asked: bool) -> None:
    if asked:
        print(f"retort {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and end.")] = False,
) -> None:
    """Nothing but the options that stand before a command."""


app.command()(service.up)
app.add_typer(service.key, name="key")
app.add_typer(upload.upload, name="upload")
app.command()(jobs.submit)
app.command()(sweeps.sweep)
app.command()(jobs.ls)
app.command()(jobs.get)
app.command()(follow.watch)
app.command()(follow.logs)
app.command()(files.download)
app.command()(files.export)
app.command()(jobs.cancel)
app.command()(jobs.pause)
app.command()(jobs.resume)
app.command()(jobs.release)
app.command()(jobs.retry)
app.command()(jobs.clone)
app.command()(catalogue.methods)
app.command()(catalogue.presets)
app.command()(taps.taps)
app.command()(taps.pairs)


def main() -> None:
    """Run the command; the process ends here."""
    sys.exit(run())


def run(arguments: list[str] | None = None) -> int:
    """The exit code of one call. An error is written to standard error; with `--json` also, as JSON, to standard output."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        app(args=given, prog_name="retort")
    except SystemExit as ended:  # typer ends every call so, with its own words and status for a wrong option
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except KeyboardInterrupt:
        console(stderr=True).print("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe went away: nobody is left to tell
        return REFUSED
    except RetortError as wrong:
        console(stderr=True).print(render.error(wrong))
        if "--json" in given:
            print(json.dumps({"error": _document(wrong)}, ensure_ascii=False))
        return _code(wrong)
    return 0


def _code(wrong: RetortError) -> int:
    if isinstance(wrong, Unreachable):
        return UNREACHABLE
    return MISUSED if isinstance(wrong, Misused) else REFUSED


def _document(wrong: RetortError) -> dict[str, object]:
    if isinstance(wrong, ApiError):
        return wrong.document()
    return {"code": type(wrong).__name__.lower(), "detail": str(wrong), "hint": wrong.hint}
