"""The picture that an inspection drew of a dataset."""

import re

from fastapi import APIRouter, Request, Response

from api.auth import Caller
from api.deps import Id, Running
from api.problems import Problem, not_found
from db import assets
from db.blobs import Blobs

router = APIRouter(prefix="/v1", tags=["datasets"])


@router.get(
    "/datasets/{id}/preview",
    summary="Look at a dataset",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}, 304: {"description": "the caller has this picture already"}},
)
def preview(running: Running, caller: Caller, id: Id, request: Request) -> Response:
    """A contact sheet, PNG: a few training samples of a few classes. Vectors have none: 404. The ETag is its sha256."""
    asset = assets.get_asset(running.database, caller, id, kind="dataset")
    if asset is None:
        raise not_found("dataset", id)
    if asset.status != "ready":
        raise Problem(409, f"the dataset {id} is {asset.status}", code="not_ready", more={"current_status": asset.status})
    drawn = [each for each in assets.list_artifacts(running.database, caller, asset.job) if each.format == "preview"]
    if not drawn:
        raise Problem(404, f"the dataset {id} has no picture", hint="samples that are images have one; vectors have none")
    headers = {"ETag": f'"{drawn[0].sha256}"', "Cache-Control": "private, no-cache"}
    if headers["ETag"] in re.split(r"\s*,\s*", request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=headers)
    return Response(b"".join(Blobs(running.database, caller).get(drawn[0].sha256)), headers=headers, media_type="image/png")
