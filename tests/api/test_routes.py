"""Every route is documented, asks for a key, and says what its errors are."""

from typing import Any

import httpx
import jsonschema
import pytest

from tests.api.lab import ONE_DATABASE

OPEN = {"/livez", "/readyz", "/version"}

pytestmark = ONE_DATABASE


@pytest.fixture
def routes(url: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Every (path, method, operation)."""
    document = httpx.get(f"{url}/openapi.json", trust_env=False).json()
    return [(path, method, operation) for path, methods in document["paths"].items() for method, operation in methods.items()]


def test_every_route_has_a_summary_a_description_and_a_place(routes: list[tuple[str, str, dict[str, Any]]]) -> None:
    for path, method, operation in routes:
        assert operation.get("summary"), f"{method} {path}"
        assert operation.get("description"), f"{method} {path}"
        assert operation.get("tags"), f"{method} {path}"
        assert "4XX" in operation["responses"], f"{method} {path}"
        for parameter in operation.get("parameters", []):
            assert parameter["schema"], f"{method} {path} {parameter['name']}"


def test_operations_have_names_of_their_own(routes: list[tuple[str, str, dict[str, Any]]]) -> None:
    names = [operation["operationId"] for _, _, operation in routes]
    assert len(set(names)) == len(names)


def test_every_route_but_health_asks_for_a_key(url: str, routes: list[tuple[str, str, dict[str, Any]]]) -> None:
    for path, method, operation in routes:
        if path in OPEN:
            assert "security" not in operation, path
            continue
        assert operation["security"], f"{method} {path}"
        address = url + path.replace("{id}", "job_1").replace("{name}", "kd")
        assert httpx.request(method, address, trust_env=False).status_code == 401, f"{method} {path}"


def test_the_page_of_the_documentation_is_there(url: str) -> None:
    assert "swagger" in httpx.get(f"{url}/docs", trust_env=False).text.lower()


def test_the_document_is_valid(url: str) -> None:
    document = httpx.get(f"{url}/openapi.json", trust_env=False).json()
    assert document["openapi"].startswith("3.1")
    for name, schema in document["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(schema), name
