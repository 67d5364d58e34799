"""What validation found wrong, told with pointers and with the names that were probably meant."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from api.findings import Finding, findings, nearest, pointer
from core.spec import JobSpec


class Kd(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: Literal["kd"]
    temperature: float = Field(4.0, gt=0)


class At(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: Literal["at"]
    power: float = 2.0


class Line(BaseModel):
    model_config = ConfigDict(extra="forbid")
    linear: tuple[float, float]


class Spec(BaseModel):
    model_config = ConfigDict(extra="forbid")
    student: str = Field("arc_1", pattern=r"^arc_[0-9a-z]{1,64}$")
    rate: Annotated[float, Field(ge=0)] | Line = 1.0
    methods: tuple[Annotated[Kd | At, Field(discriminator="name")], ...] = ()
    device: Literal["auto", "cuda"] = "auto"
    weight: float | list[float] = 1.0
    notes: dict[str, str] = {}
    names: Annotated[tuple[str, ...], Field(min_length=2)] = ("a", "b")


def found(body: Any) -> list[Finding]:
    with pytest.raises(ValidationError) as wrong:
        Spec.model_validate(body)
    return findings([{**error, "loc": ("body", *error["loc"])} for error in wrong.value.errors()], body, Spec)


def asked(fields: dict[str, Any]) -> list[Finding]:
    """What is found in a job spec with these fields."""
    body = {"student": {"architecture": "arc_1"}, "dataset": {"id": "ds_1"}, **fields}
    with pytest.raises(ValidationError) as wrong:
        JobSpec.model_validate(body)
    return findings([{**error, "loc": ("body", *error["loc"])} for error in wrong.value.errors()], body, JobSpec)


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


def test_a_name_that_another_member_of_a_union_has_is_not_offered_again() -> None:
    [finding] = found({"rate": {"linear": [1, 2], "linaer": 1}})
    assert finding.hint == "did you mean linear?"
    [finding] = [each for each in found({"methods": [{"name": "kd", "power": 1}]}) if each.pointer.endswith("power")]
    assert "power" not in finding.hint


def test_a_list_that_is_too_short_is_called_a_list() -> None:
    [finding] = found({"names": ["a"]})
    assert (finding.pointer, finding.detail) == ("/names", "list should have at least 2 items, not 1")


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


def test_of_a_union_only_the_member_that_took_the_value_s_type_is_heard() -> None:
    [finding] = found({"rate": -1})
    assert (finding.pointer, finding.detail) == ("/rate", "input should be greater than or equal to 0 (given: -1)")
    by_pointer = {finding.pointer: finding for finding in found({"rate": {"line": [1, 2]}})}
    assert by_pointer.keys() == {"/rate/linear", "/rate/line"}
    assert by_pointer["/rate/line"].hint == "did you mean linear?"


def test_what_a_body_is_made_of_is_told_in_words_of_json() -> None:
    [finding] = found({"methods": "kd"})
    assert finding.detail == "input should be a list (given: kd)"
    [finding] = found({"notes": 3})
    assert finding.detail == "input should be an object (given: 3)"


def test_a_list_whose_items_are_refused_is_not_called_too_short() -> None:
    assert [each.pointer for each in asked({"evaluate": [{"name": "fgsm", "epsilons": [-1]}]})] == ["/evaluate/0/epsilons/0"]
    assert [each.pointer for each in asked({"evaluate": [{"name": "fgsm", "epsilons": []}]})] == ["/evaluate/0/epsilons"]


def test_a_string_that_is_no_id_is_told_how_the_ids_begin() -> None:
    [finding] = found({"student": "tch_1"})
    assert (finding.pointer, finding.detail) == ("/student", "'tch_1' is no such id")
    assert finding.hint == "the ids that fit here begin with arc_"


def test_where_ids_of_several_kinds_fit_all_of_them_are_told() -> None:
    told = asked({"teacher": "ds_1", "student": {"architecture": "arc_1", "weights": "tch_1"}})
    assert [(each.pointer, each.hint) for each in told] == [
        ("/teacher", "the ids that fit here begin with tch_ or job_"),
        ("/student/weights", "the ids that fit here begin with upl_ or art_ or job_"),
    ]


def test_a_field_that_is_missing_is_pointed_at() -> None:
    [finding] = found({"methods": [{"temperature": 4}]})
    assert (finding.pointer, finding.detail) == ("/methods/0/name", "it needs a name, which says what it is")
    assert finding.hint == "there is at, kd"


def test_pointers_escape_their_two_characters() -> None:
    assert pointer(("a/b", "c~d", 0), {"a/b": {"c~d": [1]}}) == "/a~1b/c~0d/0"


def test_without_a_near_name_all_are_told() -> None:
    assert nearest("zzzz", ["kd", "at"]) == "there is at, kd"
    assert nearest("zzzz", []) == ""
