"""The pages about networks: the list is made from the code, and what the other shows is so."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from core.anatomy import measure
from core.errors import Refused
from core.layers import LAYERS
from core.networks import families, parse
from core.networks.graph import MOST_FLOPS, MOST_VALUES
from core.pages import families_page

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "architectures.md").read_text(encoding="utf-8")


def example() -> dict[str, Any]:
    (shown,) = re.findall(r"<<'JSON'\n(.*?)JSON", PAGE, re.DOTALL)
    described: dict[str, Any] = json.loads(shown)
    return described


def test_the_committed_list_is_the_one_that_the_code_makes() -> None:
    committed = (DOCS / "families.md").read_text(encoding="utf-8")
    assert committed == families_page(families()), "run: python -m core families > docs/families.md"
    for name in (*families(), *LAYERS):
        assert f"`{name}`" in committed


def test_the_declared_network_of_the_page_has_the_figures_that_it_tells() -> None:
    anatomy = measure(parse(example()))
    assert f"{anatomy.parameters:,} parameters and {anatomy.flops:,} floating-point" in PAGE
    assert [(stage.out, stage.size) for stage in anatomy.stages] == [("relu1", (32, 32)), ("relu2", (16, 16))]


def test_the_error_of_the_page_is_the_one_that_is_told() -> None:
    described = example()
    described["nodes"][5]["stride"] = 1
    with pytest.raises(Refused) as refused:
        parse(described)
    shown = json.loads(re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)[0])
    (error,) = shown["errors"]
    told = refused.value
    assert (error["pointer"], error["code"], error["detail"], shown["hint"]) == (told.where, told.code, told.reason, told.hint)


def test_every_other_architecture_of_the_page_is_one() -> None:
    others = re.findall(r"upload architecture '(\{.*?\})'", PAGE)
    assert len(others) == 2
    for shown in others:
        assert measure(parse(json.loads(shown))).parameters > 0


def test_the_limits_of_the_page_are_those_that_hold() -> None:
    assert f"{MOST_VALUES:,} values" in PAGE
    assert f"{MOST_FLOPS:,} floating-point operations" in PAGE.replace("\n", " ")
