"""The catalogue of methods: one file each, found by its place in this folder."""

import importlib
import inspect
import pkgutil
from functools import cache

from core.method import Method


@cache
def catalogue() -> dict[str, type[Method]]:
    """Every method of this folder by its name, sorted; a file holds exactly one."""
    found = {}
    for place in sorted(pkgutil.iter_modules(__path__), key=lambda place: place.name):
        module = importlib.import_module(f"{__name__}.{place.name}")
        (found[place.name],) = (
            thing
            for thing in vars(module).values()
            if inspect.isclass(thing) and issubclass(thing, Method) and thing.__module__ == module.__name__
        )
    return found
