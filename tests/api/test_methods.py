"""What the service can do: methods and families with schemas that hold, presets, and the workers that live."""

from typing import Any

import httpx
import jsonschema
import pytest

from api.routes.methods import preset_card
from core.methods import catalogue
from core.networks import families, parse
from core.pages import page
from core.presets import presets
from core.spec import JobSpec
from db import workers
from db.session import Database
from tests.core.declared import residual


def test_every_method_is_told_with_a_schema_that_its_defaults_meet(http: httpx.Client) -> None:
    listed = http.get("/v1/methods").json()["data"]
    assert [each["name"] for each in listed] == sorted(catalogue())
    for each in listed:
        assert each == http.get(f"/v1/methods/{each['name']}").json()
        assert each["title"] == each["docs"].splitlines()[0]
        assert each["page"] == page(each["name"], catalogue()[each["name"]])
        assert each["pairs_by"] == catalogue()[each["name"]].pairs_by
        assert each["reference"]
        assert "2020-12" in each["params_schema"]["$schema"]
        jsonschema.Draft202012Validator.check_schema(each["params_schema"])
        jsonschema.validate({"name": each["name"], **each["defaults"]}, each["params_schema"])


def test_an_unknown_method_is_told_the_nearest(http: httpx.Client) -> None:
    answer = http.get("/v1/methods/kdd")
    assert answer.status_code == 404
    assert "kd" in answer.json()["hint"]


def test_every_family_is_told_with_a_schema_that_a_member_meets(http: httpx.Client) -> None:
    listed = http.get("/v1/architectures/catalog").json()["data"]
    assert [each["name"] for each in listed] == sorted(families())
    schemas = {each["name"]: each["params_schema"] for each in listed}
    network = parse({"family": "mlp", "hidden": [4], "input": [1, 8, 8], "classes": 10})
    jsonschema.validate(network.model_dump(mode="json"), schemas["mlp"])


def test_the_schema_of_a_declared_network_knows_the_bounds_of_every_op(http: httpx.Client) -> None:
    listed = http.get("/v1/architectures/catalog").json()["data"]
    (schema,) = (each["params_schema"] for each in listed if each["name"] == "graph")
    jsonschema.Draft202012Validator.check_schema(schema)
    described: dict[str, Any] = {"family": "graph", "input": [3, 8, 8], "classes": 10, "nodes": residual(10)}
    jsonschema.validate(described, schema)
    jsonschema.validate(parse(described).model_dump(mode="json"), schema)
    for wrong in ({"kernel": 65}, {"kernel": [3, 0]}, {"channels": 0}, {"op": "conv3d"}, {"features": 3}, {"from": "input"}, {"name": "A"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**described, "nodes": [{**described["nodes"][0], **wrong}, *described["nodes"][1:]]}, schema)


def test_every_preset_is_listed_and_told_with_a_spec_that_only_lacks_the_ids(http: httpx.Client) -> None:
    listed = http.get("/v1/presets").json()["data"]
    assert [each["name"] for each in listed] == list(presets())
    for each in listed:
        assert http.get(f"/v1/presets/{each['name']}").json() == each
        data = {name: {**each["spec"].get(name, {}), "id": "ds_1"} for name in ("dataset", "teacher_dataset")}
        JobSpec.model_validate(each["spec"] | data | {"student": {"architecture": "arc_1"}, "teacher": "tch_1"})


def test_what_is_said_about_a_preset_is_no_part_of_its_spec() -> None:
    networks = {"teacher": {"family": "resnet", "depth": 56}, "student": {"family": "resnet", "depth": 20}}
    published = {"accuracy": 0.7066, "source": "a table"}
    card = preset_card("row", {"note": "A row.", "networks": networks, "published": published, "name": "row", "recipe": {"epochs": 240}})
    assert card.model_dump() == {
        "name": "row",
        "note": "A row.",
        "networks": networks,
        "published": published,
        "spec": {"name": "row", "recipe": {"epochs": 240}},
    }
    plain = preset_card("plain", {"note": "Settings.", "recipe": {"epochs": 240}})
    assert (plain.networks, plain.published, plain.spec) == (None, None, {"recipe": {"epochs": 240}})


def test_an_unknown_preset_is_told_the_nearest(http: httpx.Client) -> None:
    answer = http.get("/v1/presets/kd_resnet_cifar10")
    assert answer.status_code == 404
    assert "kd_resnet20_cifar10" in answer.json()["hint"]


def test_living_workers_are_told(http: httpx.Client, database: Database) -> None:
    assert http.get("/v1/capabilities").json() == {"queues": [], "devices": [], "workers": []}
    workers.heartbeat(database, id="wrk_1", host="box", pid=1, queues=["gpu", "cpu"], device="cuda", slots=2, threads=4, busy=1)
    told = http.get("/v1/capabilities").json()
    assert (told["queues"], told["devices"]) == (["cpu", "gpu"], ["cuda"])
    assert told["workers"][0]["busy"] == 1
