"""What docker-compose.yml starts: each service's command and environment, with the tests' own servers in place of the containers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).parent.parent / "docker-compose.yml"
_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::?(?P<kind>[-?])(?P<word>[^}]*))?\}")


@dataclass(frozen=True, slots=True)
class Service:
    """How one service is started."""

    command: tuple[str, ...]
    environment: Mapping[str, str]


def document(variables: Mapping[str, str]) -> Any:
    """The file with its variables put in as Compose does: `${NAME:-default}`, and `${NAME:?why}` must be given."""

    def value(match: re.Match[str]) -> str:
        name = match["name"]
        if name in variables:
            return variables[name]
        assert match["kind"] == "-", f"docker-compose.yml needs {name}: {match['word']}"
        return match["word"] or ""

    return yaml.safe_load(_VARIABLE.sub(value, FILE.read_text()))


def service(name: str, variables: Mapping[str, str], hosts: Mapping[str, str]) -> Service:
    """The command and environment of a service, with addresses like "postgres:5432" replaced as `hosts` says."""
    found = document(variables)["services"][name]

    def at_hand(text: str) -> str:
        for there, here in hosts.items():
            text = text.replace(there, here)
        return text

    return Service(tuple(found["command"]), {key: at_hand(str(text)) for key, text in found["environment"].items()})
