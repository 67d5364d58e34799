"""`retort taps` and `retort pairs`: what can be seen inside networks, and what of two of them fits together."""

from typing import Annotated

import typer

from retort import render
from retort.errors import Misused
from retort.session import Session, connected


@connected
def taps(session: Session, id: Annotated[str, typer.Argument(help="Of a teacher (tch_…) or an architecture (arc_…).")]) -> None:
    """List the places inside a network that a method may look at, with their shapes."""
    client = session.client()
    networks = {"tch": client.teachers, "arc": client.architectures}.get(id.partition("_")[0])
    if networks is None:
        raise Misused(
            f"{id} is neither a teacher nor an architecture", hint="the ids are at `retort ls teachers` and `retort ls architectures`"
        )
    listed = networks.taps(id)
    session.answer(listed, render.taps(listed))


@connected
def pairs(
    session: Session,
    teacher: Annotated[str, typer.Argument(help="tch_…")],
    architecture: Annotated[str, typer.Argument(help="The student's architecture, arc_….")],
) -> None:
    """Suggest which places of a teacher and of a student to compare, and say which methods make their own pairs of these."""
    suggested = session.client().pairs(teacher, architecture)
    session.answer(suggested, render.pairs(suggested))
