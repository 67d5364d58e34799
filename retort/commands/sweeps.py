"""`retort sweep`: a search over job specs, from a file."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

from retort import render_sweep
from retort.draft import read_document
from retort.render import warnings
from retort.session import Session, connected
from retort.sweep import Sweep

_INTERVAL = 0.5


@connected
def sweep(
    session: Session,
    file: Annotated[Path, typer.Argument(help="What to search, in YAML or JSON: base, space, strategy, …")],
    watch: Annotated[bool, typer.Option("--watch", help="Stay and show the progress; Ctrl-C detaches.")] = False,
) -> None:
    """Search over job specs: try many, and run the best again with fresh seeds."""
    started = session.client().sweeps.create(read_document(file))
    session.say(f"started {started.id}")
    if watch:
        for line in warnings(started.raw):
            session.say(line.plain)
        attend(session, started)
        return
    session.answer(dict(started.raw), Group(*warnings(started.raw), Text(f"{started.id}\nwatch with: retort watch {started.id}")))


def attend(session: Session, started: Sweep) -> None:
    """Watch a sweep, answer with what came of it, and end with 1 unless it succeeded."""
    try:
        ended = _watched(session, started)
    except KeyboardInterrupt:
        session.say(f"\ndetached; the sweep goes on. Watch again: retort watch {started.id}")
        raise typer.Exit(130) from None
    show(session, ended)
    if ended.status != "succeeded":
        raise typer.Exit(1)


def show(session: Session, one: Sweep) -> None:
    """Answer with a sweep and its trials."""
    trials = one.trials()
    session.answer({**one.raw, "trials": trials}, render_sweep.sweep(one, trials))


def _watched(session: Session, now: Sweep) -> Sweep:
    """The sweep once it has ended; a line for each piece of news on the way."""
    said = ""
    while True:
        line = render_sweep.news(now)
        if line != said:
            session.say(line)
            said = line
        if now.is_terminal:
            return now
        time.sleep(_INTERVAL)
        now = now.refresh()
