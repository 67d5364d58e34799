"""The picture of a dataset, as the API gives it."""

import httpx

from db import assets, life
from db.blobs import Blobs
from db.session import Database
from tests.api.lab import User, claim_of, digits, upload


def test_a_preview_is_a_png_that_need_not_be_sent_twice_and_goes_with_its_dataset(
    http: httpx.Client, user: User, database: Database
) -> None:
    body = {"name": "d", "upload": upload(http, b"csv", "dataset"), "format": "csv", "label": "digit", "labelled": True}
    dataset = http.post("/v1/datasets", json=body).raise_for_status().json()
    url = f"/v1/datasets/{dataset['id']}/preview"
    early = http.get(url)
    assert (early.status_code, early.json()["code"]) == (409, "not_ready")

    blobs = Blobs(database, user.tenant)
    canonical, picture = blobs.put([b"canonical"]), blobs.put([b"\x89PNG"])
    drawn = life.NewArtifact(name="preview.png", format="preview", sha256=picture, bytes=4, facts={})
    claim = claim_of(database, dataset["job"])
    assert claim.job.inputs["task"]["request"] == {"format": "csv", "label": "digit", "labelled": True}
    assert life.complete(database, claim, result={"report": digits().model_dump(mode="json")}, artifacts=[drawn], canonical=canonical)

    answer = http.get(url)
    assert (answer.status_code, answer.content, answer.headers["Content-Type"]) == (200, b"\x89PNG", "image/png")
    again = http.get(url, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")

    http.delete(f"/v1/datasets/{dataset['id']}")
    assert http.get(url).status_code == 404
    assert assets.list_artifacts(database, user.tenant, dataset["job"]) == []


def test_vectors_have_no_preview(http: httpx.Client, user: User, database: Database) -> None:
    dataset = http.post("/v1/datasets", json={"name": "d", "upload": upload(http, b"csv", "dataset"), "format": "csv"}).json()
    assert life.complete(database, claim_of(database, dataset["job"]), result={"report": digits().model_dump(mode="json")})
    answer = http.get(f"/v1/datasets/{dataset['id']}/preview")
    assert (answer.status_code, answer.json()["detail"]) == (404, f"the dataset {dataset['id']} has no picture")
    assert http.get("/v1/datasets/ds_none/preview").status_code == 404
