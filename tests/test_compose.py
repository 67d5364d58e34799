"""docker-compose.yml is what the Compose Specification says it should be, and starts what the README says it starts."""

import json
from importlib.resources import files

import jsonschema
import pytest

from tests import compose

VARIABLES = {"RETORT_APP_PASSWORD": "app", "RETORT_OWNER_PASSWORD": "owner"}


def test_the_file_is_valid_by_the_compose_specification() -> None:
    schema = json.loads((files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json").read_text())
    jsonschema.validate(compose.document(VARIABLES), schema)


def test_a_password_that_is_not_chosen_is_asked_for() -> None:
    with pytest.raises(AssertionError, match="RETORT_APP_PASSWORD"):
        compose.document({})


def test_a_gpu_worker_reserves_its_devices_and_a_cpu_worker_does_not() -> None:
    services = compose.document(VARIABLES)["services"]
    assert services["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert "deploy" not in services["worker-cpu"]
    assert services["worker-gpu"]["environment"]["RETORT_QUEUES"] == "gpu"


def test_the_application_never_gets_the_owners_password() -> None:
    services = compose.document(VARIABLES)["services"]
    for name in ("api", "worker-cpu", "worker-gpu"):
        assert "owner" not in str(services[name]["environment"])
