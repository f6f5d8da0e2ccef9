"""The admin port's documents."""

import json
from collections.abc import MutableMapping
from typing import Any

import pytest

from devicesim.emulator.admin import AdminApp, AdminError
from tests.emulator_support import A, B, World, device, template


@pytest.fixture
def world() -> World:
    world = World()
    account = world.account(A)
    world.register_ca(account, mode="SNI_ONLY", template_body=template())
    world.client(0, account.endpoint).connect("robot")
    world.advance(2)
    world.ready_account(1, account_id=B)
    world.client(1, world.account(B).endpoint).connected("b").subscribe("t")
    return world


def get(world: World, path: str, query: str = "") -> Any:
    return json.loads(json.dumps(AdminApp(world.plane).answer("GET", path, query)))


def test_health_counts(world: World) -> None:
    assert get(world, "/health") == {
        "status": "ok",
        "connections": 1,
        "provisioning_runs": 0,
        "verdicts": {"registered": 1, "published": 1, "provisioned": 1, "admitted": 1},
    }


@pytest.mark.parametrize(
    ("query", "verdicts"),
    [
        ("", ["registered", "published", "provisioned", "admitted"]),
        (f"account={A}", ["registered", "published", "provisioned"]),
        (f"account={B}", ["admitted"]),
        ("verdict=provisioned", ["provisioned"]),
        ("kind=event", ["published"]),
        (f"certificate_id={device(1).certificate_id}", ["admitted"]),
        ("limit=1", ["admitted"]),
        ("after=2", ["provisioned", "admitted"]),
    ],
)
def test_history(world: World, query: str, verdicts: list[str]) -> None:
    assert [entry["verdict"] for entry in get(world, "/history", query)["entries"]] == verdicts


def test_state(world: World) -> None:
    (account,) = get(world, "/state", f"account={A}")["accounts"]

    (ca,) = account["ca_certificates"]
    assert (ca["mode"], ca["status"], ca["auto_registration"], ca["jitp"]) == ("SNI_ONLY", "ACTIVE", "ENABLE", True)
    (certificate,) = account["certificates"]
    assert certificate["certificate_id"] == device(0).certificate_id
    assert (certificate["status"], certificate["mode"], certificate["things"]) == (
        "ACTIVE",
        "SNI_ONLY",
        ["robot-000000"],
    )
    assert account["things"] == ["robot-000000"]
    assert account["counts"]["certificates_by_status"] == {"ACTIVE": 1}
    assert [each["account_id"] for each in get(world, "/state")["accounts"]] == [A, B]
    assert get(world, "/state", f"account={B}")["accounts"][0]["counts"]["subscriptions"] == 1


@pytest.mark.parametrize(
    ("method", "path", "query", "status", "message"),
    [
        ("GET", "/nothing", "", 404, "no such path '/nothing'"),
        ("POST", "/state", "", 405, "method 'POST' is not allowed"),
        ("GET", "/history", "acount=1", 400, "unknown parameter 'acount'"),
        ("GET", "/history", "limit=-1", 400, "parameter limit is '-1'"),
        ("GET", "/history", "after=x", 400, "parameter after is 'x'"),
        ("GET", "/health", "x=1", 400, "unknown parameter 'x'"),
    ],
)
def test_what_is_asked_wrongly(world: World, method: str, path: str, query: str, status: int, message: str) -> None:
    with pytest.raises(AdminError, match=message) as caught:
        AdminApp(world.plane).answer(method, path, query)

    assert caught.value.status == status


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/health", 200), ("HEAD", "/x", 404), ("PUT", "/state", 405)]
)
async def test_as_an_asgi_application(world: World, method: str, path: str, status: int) -> None:
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        raise AssertionError("a read-only door reads no body")

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await AdminApp(world.plane)({"type": "http", "method": method, "path": path, "query_string": b""}, receive, send)

    assert sent[0]["status"] == status
    assert (b"content-type", b"application/json") in sent[0]["headers"]
    assert (sent[1]["body"] == b"") == (method == "HEAD")
