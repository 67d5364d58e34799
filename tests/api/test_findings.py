"""What validation found wrong, told with pointers and with the names that were probably meant."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from api.findings import Finding, findings, nearest, pointer


class Kd(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: Literal["kd"]
    temperature: float = Field(4.0, gt=0)


class At(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: Literal["at"]
    power: float = 2.0


class Spec(BaseModel):
    model_config = ConfigDict(extra="forbid")
    methods: tuple[Annotated[Kd | At, Field(discriminator="name")], ...] = ()
    device: Literal["auto", "cuda"] = "auto"
    weight: float | list[float] = 1.0
    notes: dict[str, str] = {}


def found(body: Any) -> list[Finding]:
    with pytest.raises(ValidationError) as wrong:
        Spec.model_validate(body)
    return findings([{**error, "loc": ("body", *error["loc"])} for error in wrong.value.errors()], body, Spec)


def test_a_value_out_of_range_is_named_by_its_pointer() -> None:
    [finding] = found({"methods": [{"name": "kd", "temperature": -1}]})
    assert finding.pointer == "/methods/0/temperature"
    assert "greater than 0" in finding.detail
    assert "-1" in finding.detail


def test_an_unknown_parameter_is_told_the_nearest_of_its_own_method() -> None:
    [finding] = found({"methods": [{"name": "kd", "temprature": 4}]})
    assert (finding.pointer, finding.hint) == ("/methods/0/temprature", "did you mean temperature?")
    [finding] = found({"methods": [{"name": "at", "temperature": 4}]})
    assert "power" in finding.hint
    assert "did you mean" not in finding.hint


def test_an_unknown_method_is_told_the_nearest_name() -> None:
    [finding] = found({"methods": [{"name": "kdd"}]})
    assert (finding.pointer, finding.hint) == ("/methods/0/name", "did you mean kd?")


def test_an_unknown_word_is_told_the_nearest() -> None:
    [finding] = found({"device": "cud"})
    assert (finding.pointer, finding.hint) == ("/device", "did you mean cuda?")


def test_the_members_of_a_union_make_one_finding() -> None:
    [finding] = found({"weight": "heavy"})
    assert finding.pointer == "/weight"
    assert "number" in finding.detail
    assert "list" in finding.detail


def test_a_field_that_is_missing_is_pointed_at() -> None:
    [finding] = found({"methods": [{"temperature": 4}]})
    assert (finding.pointer, finding.detail) == ("/methods/0/name", "it needs a name, which says what it is")


def test_pointers_escape_their_two_characters() -> None:
    assert pointer(("a/b", "c~d", 0), {"a/b": {"c~d": [1]}}) == "/a~1b/c~0d/0"


def test_without_a_near_name_all_are_told() -> None:
    assert nearest("zzzz", ["kd", "at"]) == "there is at, kd"
    assert nearest("zzzz", []) == ""
