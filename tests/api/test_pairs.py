"""Suggested pairs: both kinds with their shapes, the reason where there are none, and who takes them."""

import json
from collections.abc import Callable
from typing import Any

import httpx

from db.session import Database
from tests.api.lab import ONE_DATABASE, STUDENT, Lab, User, equip
from tests.retort.service import call

BIG = {"family": "convnet", "channels": [8, 16], "input": [1, 8, 8], "classes": 10}
SMALL = {"family": "convnet", "channels": [2, 4], "input": [1, 8, 8], "classes": 10}


def suggested(http: httpx.Client, lab: Lab) -> dict[str, dict[str, Any]]:
    answer = http.get("/v1/pairs", params={"teacher": lab.teacher, "architecture": lab.student})
    assert answer.status_code == 200, answer.text
    return {each["kind"]: each for each in answer.json()["data"]}


@ONE_DATABASE
def test_both_kinds_are_suggested_with_the_shapes_of_both_sides(user: User, database: Database) -> None:
    told = suggested(user.http, equip(database, user, teacher=BIG, student=SMALL))
    # A block of convnet keeps its 8x8 or, after one pooling, 4x4, and has as many channels as its entry says.
    shapes = [([8, 8, 8], [2, 8, 8]), ([16, 4, 4], [4, 4, 4])]
    for kind, taps in (("out", ["block1", "block2"]), ("pre", ["block1.relu:in", "block2.relu:in"])):
        assert told[kind]["pairs"] == [
            {"teacher": {"tap": tap, "shape": wide}, "student": {"tap": tap, "shape": narrow}}
            for tap, (wide, narrow) in zip(taps, shapes, strict=True)
        ]
        assert (told[kind]["reason"], told[kind]["hint"]) == (None, None)
    assert {"at", "fsp"} <= set(told["out"]["methods"])
    assert {"ab", "fitnet"} <= set(told["pre"]["methods"])
    assert "kd" not in told["out"]["methods"] + told["pre"]["methods"]


@ONE_DATABASE
def test_where_nothing_can_be_paired_the_reason_stands_in_the_answer(http: httpx.Client, lab: Lab) -> None:
    for suggestion in suggested(http, lab).values():
        assert suggestion["pairs"] == []
        assert "no maps with a height and a width" in suggestion["reason"]
        assert "name the pairs yourself" in suggestion["hint"]


@ONE_DATABASE
def test_what_is_not_there_or_not_ready_is_refused_by_its_id(http: httpx.Client, lab: Lab, users: Callable[[str], User]) -> None:
    def asked(client: httpx.Client, **query: str) -> tuple[int, str, str]:
        answer = client.get("/v1/pairs", params=query)
        return answer.status_code, answer.json()["code"], answer.json()["detail"]

    late = http.post("/v1/architectures", json={"name": "late", "architecture": STUDENT}).json()["id"]
    assert asked(http, teacher="tch_none", architecture=lab.student) == (422, "invalid_input", "there is no teacher tch_none")
    assert asked(http, teacher=lab.teacher, architecture=lab.teacher)[:2] == (422, "invalid_input")
    assert asked(http, teacher=lab.teacher, architecture=late)[:2] == (409, "not_ready")
    assert asked(http, teacher=lab.teacher)[2] == "the query parameter architecture: field required"
    assert asked(users("eve").http, teacher=lab.teacher, architecture=lab.student)[2] == f"there is no teacher {lab.teacher}"


def told(url: str, user: User, *words: str) -> str:
    """What the command prints."""
    done = call(*words, "--url", url, "--key", user.key)
    assert done.returncode == 0, done.stderr
    return done.stdout


@ONE_DATABASE
def test_the_command_shows_pairs_and_taps_as_tables_and_as_json(url: str, user: User, database: Database) -> None:
    lab = equip(database, user, teacher=BIG, student=SMALL)
    shown = [" ".join(line.split()) for line in told(url, user, "pairs", lab.teacher, lab.student).splitlines()]
    assert "block2 16 × 4 × 4 block2 4 × 4 × 4" in shown
    assert "block1.relu:in 8 × 8 × 8 block1.relu:in 2 × 8 × 8" in shown
    assert """to name others: --method 'at:pairs=[["block1", "block1"], ["block2", "block2"]]'""" in shown
    answer = user.http.get("/v1/pairs", params={"teacher": lab.teacher, "architecture": lab.student}).json()
    assert json.loads(told(url, user, "pairs", lab.teacher, lab.student, "--json")) == answer
    shown = [" ".join(line.split()) for line in told(url, user, "taps", lab.student).splitlines()]
    assert "pool1 2 × 4 × 4" in shown
    assert "4 × 4 block2 4 block2.relu:in 4" in shown


@ONE_DATABASE
def test_the_command_shows_why_there_are_no_pairs(url: str, user: User, lab: Lab) -> None:
    shown = told(url, user, "pairs", lab.teacher, lab.student)
    assert shown.count("none: the teacher (mlp) has no maps with a height and a width") == 2
    assert "name the pairs yourself" in shown
