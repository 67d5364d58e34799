"""Teachers, architectures and datasets: made of what was sent, inspected by a worker, shown with what it found."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
import torch
from torch import Tensor, nn

from core.networks import parse
from db import assets, jobs, life
from db.session import Database
from tests.api.lab import ONE_DATABASE, STUDENT, TEACHER, Lab, User, anatomy_report, claim_of, equip, inspected, upload, weights
from tests.core.declared import residual

DECLARED: dict[str, Any] = {"family": "graph", "input": [3, 8, 8], "classes": 10, "nodes": residual(10)}


def teacher_body(http: httpx.Client, **more: Any) -> dict[str, Any]:
    return {"name": "t", "upload": upload(http, weights(), "teacher"), "architecture": TEACHER, "normalization": None, **more}


def test_a_teacher_is_inspected_before_it_is_ready(http: httpx.Client, user: User, database: Database) -> None:
    normalization = {"mean": [0.5], "std": [0.2]}
    answer = http.post(
        "/v1/teachers", json=teacher_body(http, normalization=normalization, labels=list("0123456789"), metadata={"by": "me"})
    )
    assert answer.status_code == 202, answer.text
    asset = answer.json()
    assert answer.headers["Location"] == f"/v1/teachers/{asset['id']}"
    assert (asset["object"], asset["status"], asset["report"]) == ("teacher", "processing", None)
    assert http.get(f"/v1/teachers/{asset['id']}").headers["Retry-After"]
    claim = claim_of(database, asset["job"])
    task = claim.job.inputs["task"]
    assert (claim.job.kind, claim.job.queue, task["kind"], task["asset"]) == ("inspect", "cpu", "inspect", "teacher")
    told = {"architecture": TEACHER, "normalization": normalization, "labels": list("0123456789"), "format": "safetensors"}
    assert task["request"] == told
    assert list(claim.job.inputs["blobs"]) == ["in/upload"]
    life.complete(database, claim, result={"report": anatomy_report(TEACHER)})
    ready = http.get(f"/v1/teachers/{asset['id']}").json()
    assert (ready["status"], ready["parameters"], ready["metadata"]) == ("ready", 64 * 16 + 16 + 16 * 10 + 10, {"by": "me"})
    assert ready["bytes"] == len(weights())


def test_the_absence_of_a_normalization_must_be_said(http: httpx.Client) -> None:
    body = teacher_body(http)
    del body["normalization"]
    answer = http.post("/v1/teachers", json=body)
    assert answer.status_code == 422
    assert [each["pointer"] for each in answer.json()["errors"]] == ["/normalization"]
    assert http.post("/v1/teachers", json=teacher_body(http)).json()["request"]["normalization"] is None


def test_a_teacher_may_be_of_an_architecture_that_is_ready(http: httpx.Client, user: User, database: Database) -> None:
    arc = http.post("/v1/architectures", json={"name": "a", "architecture": TEACHER}).json()
    early = http.post("/v1/teachers", json=teacher_body(http, architecture=arc["id"]))
    assert (early.status_code, early.json()["code"], early.json()["retryable"]) == (409, "not_ready", True)
    inspected(database, user, arc, report=anatomy_report(TEACHER))
    made = http.post("/v1/teachers", json=teacher_body(http, architecture=arc["id"]))
    assert made.json()["request"]["architecture"] == TEACHER


def test_a_rejected_asset_says_why(http: httpx.Client, database: Database) -> None:
    asset = http.post("/v1/teachers", json=teacher_body(http)).json()
    problem = {"where": "/weights/fc.weight", "reason": "missing", "hint": "add it", "code": "invalid_input"}
    life.fail(database, claim_of(database, asset["job"]), code="invalid_input", problem=problem)
    told = http.get(f"/v1/teachers/{asset['id']}").json()
    assert (told["status"], told["problem"]) == ("rejected", problem)


@pytest.mark.parametrize(
    ("architecture", "pointer", "hint"),
    [
        ({"family": "mpl"}, "/architecture/family", "mlp"),
        ({}, "/architecture/family", "resnet"),
        ({**TEACHER, "hiden": [4]}, "/architecture/hiden", "hidden"),
        ({**TEACHER, "classes": 1}, "/architecture/classes", ""),
        ({**TEACHER, "hidden": [10**9]}, "/architecture/hidden/0", ""),
        ({"family": "resnet", "depth": 21, "input": [3, 32, 32], "classes": 10}, "/architecture/depth", ""),
        ({**DECLARED, "nodes": residual(9)}, "/architecture/nodes/20", "10 features"),
        ({**DECLARED, "nodes": [*residual(10)[:12], *residual(10)[13:]]}, "/architecture/nodes/12/from/1", ""),
        ({**DECLARED, "nodes": [{"name": "a", "op": "conv2"}]}, "/architecture/nodes/0/op", "conv2d"),
    ],
)
def test_an_architecture_that_cannot_be_is_refused_by_field(
    http: httpx.Client, architecture: dict[str, Any], pointer: str, hint: str
) -> None:
    answer = http.post("/v1/architectures", json={"name": "a", "architecture": architecture})
    assert answer.status_code == 422, answer.text
    assert [each["pointer"] for each in answer.json()["errors"]] == [pointer]
    assert hint in answer.json()["hint"]
    assert http.get("/v1/architectures").json()["data"] == []


def test_a_declared_network_is_kept_as_it_was_understood_and_its_report_tells_what_it_costs(
    http: httpx.Client, user: User, database: Database
) -> None:
    asset = http.post("/v1/architectures", json={"name": "a", "architecture": DECLARED}).json()
    kept = asset["request"]["architecture"]
    assert (kept["nodes"][0]["kernel"], kept["nodes"][5]["from"]) == ([3, 3], ["relu1", "bn2"])
    inspected(database, user, asset, report=anatomy_report(kept))
    anatomy = http.get(f"/v1/architectures/{asset['id']}").json()["report"]["anatomy"]
    assert anatomy["parameters"] == sum(parameter.numel() for parameter in parse(DECLARED).build().parameters())
    assert min(anatomy["flops"], anatomy["activations"]) > 0
    assert {each["tap"]: each["shape"] for each in http.get(f"/v1/architectures/{asset['id']}/taps").json()["data"]} == shapes_seen(
        DECLARED
    )


def test_an_asset_needs_an_upload_that_is_there_whole_and_meant_for_it(http: httpx.Client) -> None:
    body = teacher_body(http)
    missing = http.post("/v1/teachers", json={**body, "upload": "upl_none"})
    assert (missing.status_code, missing.json()["errors"][0]["pointer"]) == (422, "/upload")
    pending = http.post("/v1/uploads", json={"purpose": "teacher", "filename": "f", "bytes": 1, "sha256": "0" * 64}).json()["id"]
    early = http.post("/v1/teachers", json={**body, "upload": pending})
    assert (early.status_code, early.json()["current_status"]) == (409, "pending")
    other = http.post("/v1/datasets", json={"name": "d", "upload": body["upload"], "format": "npz"})
    assert (other.status_code, other.json()["errors"][0]["code"]) == (422, "wrong_purpose")


def test_a_dataset_is_told_as_it_was_asked_for(http: httpx.Client, database: Database) -> None:
    body = {"name": "d", "upload": upload(http, b"zip", "dataset"), "format": "imagefolder", "size": [32, 32], "classes": 10}
    asset = http.post("/v1/datasets", json=body).json()
    assert claim_of(database, asset["job"]).job.inputs["task"]["request"] == {"format": "imagefolder", "size": [32, 32], "classes": 10}
    answer = http.post("/v1/datasets", json={**body, "format": "imagefoldr"})
    assert (answer.status_code, answer.json()["hint"]) == (422, "did you mean imagefolder?")


def test_taps_are_listed_in_the_order_of_a_forward_pass(http: httpx.Client, lab: Lab) -> None:
    taps = http.get(f"/v1/teachers/{lab.teacher}/taps").json()["data"]
    assert {"tap": "linear1", "shape": [16]} in taps
    names = [each["tap"] for each in taps]
    assert names.index("linear1") < names.index("relu1") < names.index("fc")
    waiting = http.post("/v1/architectures", json={"name": "a", "architecture": STUDENT}).json()["id"]
    assert http.get(f"/v1/architectures/{waiting}/taps").status_code == 409


def shapes_seen(architecture: dict[str, Any]) -> dict[str, list[int]]:
    """What plain hooks see at every module of a network, in and out, without the batch."""
    seen: dict[str, list[int]] = {}

    def watch(name: str, module: nn.Module) -> None:
        def see(module: nn.Module, given: tuple[Tensor, ...], gave: Tensor) -> None:
            seen.update({f"{name}:in": list(given[0].shape[1:]), name: list(gave.shape[1:])})

        module.register_forward_hook(see)

    network = parse(architecture).build().eval()
    for name, module in network.named_modules():
        if name:
            watch(name, module)
    network(torch.zeros(1, *architecture["input"]))
    return seen


@ONE_DATABASE
def test_every_tap_is_listed_with_its_shape_and_stands_in_the_report(http: httpx.Client, user: User, database: Database) -> None:
    architecture = {"family": "convnet", "channels": [4, 6], "input": [1, 8, 8], "classes": 10}
    lab = equip(database, user, teacher=architecture, student=architecture)
    for place in (f"/v1/teachers/{lab.teacher}", f"/v1/architectures/{lab.student}"):
        listed = http.get(f"{place}/taps").json()
        assert {each["tap"]: each["shape"] for each in listed["data"]} == shapes_seen(architecture)
        assert [(stage["size"], stage["out"], stage["pre"]) for stage in listed["stages"]] == [
            ([8, 8], "block1", "block1.relu:in"),
            ([4, 4], "block2", "block2.relu:in"),
        ]
        assert http.get(place).json()["report"]["anatomy"]["taps"] == [[each["tap"], each["shape"]] for each in listed["data"]]


def test_lists_are_paged_newest_first(http: httpx.Client) -> None:
    ids = [http.post("/v1/architectures", json={"name": f"a{i}", "architecture": STUDENT}).json()["id"] for i in range(5)]
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = http.get("/v1/architectures", params={"limit": 2, **cursor}).json()
        seen += [each["id"] for each in page["data"]]
        if not page["has_more"]:
            break
        cursor = {"after": page["next_cursor"]}
    assert seen == ids[::-1]


def test_a_deleted_asset_is_gone_and_its_inspection_with_it(http: httpx.Client, user: User, database: Database) -> None:
    asset = http.post("/v1/architectures", json={"name": "a", "architecture": STUDENT}).json()
    assert http.delete(f"/v1/architectures/{asset['id']}").status_code == 204
    assert http.get(f"/v1/architectures/{asset['id']}").status_code == 404
    assert http.delete(f"/v1/architectures/{asset['id']}").status_code == 404
    job = jobs.get_job(database, user.tenant, asset["job"])
    assert job is not None
    assert job.state == "cancelled"


def test_an_asset_of_another_kind_is_not_found(http: httpx.Client, users: Callable[[str], User], lab: Lab) -> None:
    assert http.get(f"/v1/datasets/{lab.teacher}").status_code == 404
    assert http.delete(f"/v1/datasets/{lab.teacher}").status_code == 404
    assert http.get(f"/v1/teachers/{lab.teacher}").status_code == 200


def test_metadata_is_sixteen_short_texts(http: httpx.Client, user: User, database: Database) -> None:
    for metadata in ({"k": 1}, {str(i): "" for i in range(17)}, {"k" * 65: "v"}, {"k": "v" * 513}):
        answer = http.post("/v1/architectures", json={"name": "a", "architecture": STUDENT, "metadata": metadata})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"].startswith("/metadata")
    assert assets.list_assets(database, user.tenant, kind="architecture", limit=5) == []


def test_above_the_cap_no_more_inspections_are_queued(http: httpx.Client, serve: Any, settings: Any) -> None:
    small, body = serve(settings.model_copy(update={"max_queued": 1})), {"name": "a", "architecture": TEACHER}
    assert http.post(f"{small}/v1/architectures", json=body).status_code == 202
    answer = http.post(f"{small}/v1/architectures", json=body)
    assert (answer.status_code, answer.json()["code"], answer.json()["retryable"]) == (429, "too_many_queued", True)
    assert answer.headers["Retry-After"]
