"""`retort methods` and `retort presets`: what the service can do."""

from typing import Annotated

import typer

from retort import render
from retort.session import Session, connected


@connected
def methods(session: Session, name: Annotated[str | None, typer.Argument(help="Show this one with its parameters.")] = None) -> None:
    """List the methods, or show one."""
    catalogue = session.client().methods
    if name is None:
        listed = catalogue.list()
        session.answer({"object": "list", "data": listed}, render.methods(listed))
    else:
        one = catalogue.get(name)
        session.answer(one, render.method(one))


@connected
def presets(session: Session, name: Annotated[str | None, typer.Argument(help="Show this one's whole job spec.")] = None) -> None:
    """List the presets, published rows as whole job specs, or show one."""
    catalogue = session.client().presets
    if name is None:
        listed = catalogue.list()
        session.answer({"object": "list", "data": listed}, render.presets(listed))
    else:
        one = catalogue.get(name)
        session.answer(one, render.document(one))
