"""`retort methods` and `retort presets`: what the service can do."""

from typing import Annotated

import typer

from retort import render
from retort.session import Session, connected


@connected
def methods(session: Session, name: Annotated[str | None, typer.Argument(help="Show the page of this one.")] = None) -> None:
    """List the methods, or show one: the idea, the formula, the cost, the parameters."""
    catalogue = session.client().methods
    if name is None:
        listed = catalogue.list()
        session.answer({"object": "list", "data": listed}, render.methods(listed))
    else:
        one = catalogue.get(name)
        session.answer(one, render.method(one))


@connected
def presets(session: Session, name: Annotated[str | None, typer.Argument(help="Show this one's whole job spec.")] = None) -> None:
    """List the presets, published rows as whole job specs, or show one with its networks and its figure."""
    catalogue = session.client().presets
    if name is None:
        listed = catalogue.list()
        session.answer({"object": "list", "data": listed}, render.presets(listed))
    else:
        one = catalogue.get(name)
        session.answer(one, render.preset(one))
