"""Who may ask: keys are made, listed without their secrets, and revoked at once."""

import httpx

from tests.api.lab import User


def test_the_caller_is_the_tenant_of_the_key(user: User) -> None:
    assert user.http.get("/v1/me").json()["id"] == user.tenant.id


def test_a_new_key_works_until_it_is_revoked(user: User, url: str) -> None:
    made = user.http.post("/v1/api_keys", json={"name": "laptop"})
    assert made.status_code == 201, made.text
    key = made.json()["key"]
    headers = {"Authorization": f"Bearer {key}"}
    assert httpx.get(f"{url}/v1/me", headers=headers, trust_env=False).json()["id"] == user.tenant.id
    listed = user.http.get("/v1/api_keys").json()["data"]
    assert [each["name"] for each in listed] == ["test", "laptop"]
    assert key.split("_", 2)[2] not in str(listed)
    assert user.http.delete(f"/v1/api_keys/{listed[1]['id']}").status_code == 204
    assert httpx.get(f"{url}/v1/me", headers=headers, trust_env=False).status_code == 401
    assert user.http.delete(f"/v1/api_keys/{listed[1]['id']}").status_code == 404


def test_a_key_needs_a_name(http: httpx.Client) -> None:
    answer = http.post("/v1/api_keys", json={"name": ""})
    assert [each["pointer"] for each in answer.json()["errors"]] == ["/name"]
