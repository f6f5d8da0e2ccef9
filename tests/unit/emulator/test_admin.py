"""The admin port's documents, what it lets be done, and whom it refuses."""

import json
from collections.abc import Mapping, MutableMapping
from typing import Any

import pytest

from devicesim.emulator.admin import MAX_BODY, AdminApp
from devicesim.emulator.adminroutes import AdminError
from devicesim.emulator.state.journal import shapes
from devicesim.pki.identity import certificate_pem
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


def answer(world: World, method: str, path: str, query: str = "", body: object = None) -> Any:
    data = b"" if body is None else json.dumps(body).encode()
    return json.loads(json.dumps(AdminApp(world.core).routes.answer(method, path, query, data)))


def get(world: World, path: str, query: str = "") -> Any:
    return answer(world, "GET", path, query)


# --- what it saw ---


def test_health_counts(world: World) -> None:
    assert get(world, "/health") == {
        "status": "ok",
        "connections": 1,
        "provisioning_runs": 0,
        "throttled": {},
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
        ("client_id=b", ["admitted"]),
        ("reason=DEVICE_CERTIFICATE_REVOKED", []),
        ("certificate_id=THAT-OF-B", ["admitted"]),
        ("limit=1", ["admitted"]),
        ("after=2", ["provisioned", "admitted"]),
        ("before=3&limit=1", ["published"]),
        ("after=1&before=4", ["published", "provisioned"]),
    ],
)
def test_history(world: World, query: str, verdicts: list[str]) -> None:
    query = query.replace("THAT-OF-B", device(1).certificate_id)  # new in every process, unlike the test's name

    assert [entry["verdict"] for entry in get(world, "/history", query)["entries"]] == verdicts


def test_history_by_reason(world: World) -> None:
    world.update(world.account(B), device(1), "REVOKED")
    world.client(1, world.account(B).endpoint).connect("b")

    (entry,) = get(world, "/history", "reason=DEVICE_CERTIFICATE_REVOKED")["entries"]
    assert (entry["verdict"], entry["client_id"], entry["account_id"]) == ("refused", "b", B)


def test_one_answer_holds_so_many_entries_and_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devicesim.emulator.adminroutes.MAX_LIMIT", 2)

    assert len(get(world, "/history", "limit=999")["entries"]) == 2


# --- what it holds ---


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
    assert account["collections"]["certificates"] == 1
    assert [each["account_id"] for each in get(world, "/state")["accounts"]] == [A, B]
    assert get(world, "/state", f"account={B}")["accounts"][0]["counts"]["subscriptions"] == 1


def test_state_is_cut_at_the_limit_and_says_how_much_there_is(world: World) -> None:
    for number in range(5):
        world.registry.things.create(world.account(A), f"t{number}")

    (account,) = get(world, "/state", f"account={A}&limit=2")["accounts"]

    assert account["things"] == ["robot-000000", "t0"]
    assert account["counts"]["things"] == 6


def test_a_collection_is_read_page_by_page_whole_and_in_order(world: World) -> None:
    for number in range(7):
        world.registry.things.create(world.account(A), f"t{number}")
    seen: list[str] = []
    after = ""
    while True:
        page = get(world, "/state/things", f"account={A}&limit=3{after}")
        assert len(page["items"]) <= 3
        assert page["count"] == 8
        seen += [item["key"] for item in page["items"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"

    assert seen == list(world.account(A).things)


def test_a_record_is_shown_with_all_its_fields(world: World) -> None:
    (item,) = get(world, "/state/certificates", f"account={A}")["items"]

    assert item["key"] == device(0).certificate_id
    assert item["value"]["pem"] == certificate_pem(device(0).certificate)
    assert item["value"]["status"] == "ACTIVE"


@pytest.mark.parametrize("name", sorted(name for name, shape in shapes().items() if shape.depth))
def test_every_collection_can_be_shown(world: World, name: str) -> None:
    page = get(world, f"/state/{name}", f"account={A}&limit=100000")

    assert len(page["items"]) == page["count"] == len(getattr(world.account(A), name))


# --- what is done to it ---


def test_a_fault_is_injected_shown_fires_and_is_removed(world: World) -> None:
    endpoint = world.account(B).endpoint
    made = answer(world, "POST", "/faults", body={"kind": "refuse_connect", "client_id": "b", "count": 1})
    assert made == {"name": "refuse_connect", "kind": "refuse_connect"}

    assert world.client(1, endpoint).connect("b") == []
    assert world.last().verdict == "refused"
    assert [each.fault for each in world.history.select(kind="injected")] == ["refuse_connect"]
    (status,) = get(world, "/faults")["faults"]
    assert (status["fired"], status["over"]) == (1, True)
    world.client(1, endpoint).connected("b")

    assert answer(world, "DELETE", "/faults", "name=refuse_connect") == {"removed": ["refuse_connect"]}
    assert get(world, "/faults")["faults"] == []


def test_a_fault_s_account_is_named_as_in_the_filters(world: World) -> None:
    answer(world, "POST", "/faults", body={"kind": "refuse_connect", "account": A})

    (fault,) = get(world, "/faults")["faults"]
    assert fault["account_id"] == A


@pytest.mark.parametrize("operation", ["CreateThing", "GetThingShadow"])
def test_a_fault_of_an_operation_of_the_api(world: World, operation: str) -> None:
    assert (
        answer(world, "POST", "/faults", body={"kind": "throttle_api", "operation": operation})["kind"]
        == "throttle_api"
    )


def test_deleting_faults_without_a_name_takes_all_off(world: World) -> None:
    for kind in ("throttle", "refuse_connect"):
        answer(world, "POST", "/faults", body={"kind": kind})

    assert answer(world, "DELETE", "/faults") == {"removed": ["throttle", "refuse_connect"]}
    assert get(world, "/faults")["faults"] == []


def test_the_clock_is_put_forward(world: World) -> None:
    before = get(world, "/clock")["time"]

    assert answer(world, "POST", "/clock", body={"advance": 3600}) == {"time": before + 3600, "advanced": 3600}

    assert get(world, "/clock")["time"] == before + 3600
    (entry,) = world.history.select(limit=1)
    assert entry.time <= before


def test_reset_is_the_beginning(world: World) -> None:
    world.core.announce([(A, "us-east-1")])
    client = world.client(1, world.account(B).endpoint).connected("b2")
    answer(world, "POST", "/faults", body={"kind": "throttle"})

    assert answer(world, "POST", "/reset") == {"status": "ok"}

    assert client.closed
    assert get(world, "/health") == {
        "status": "ok",
        "connections": 0,
        "provisioning_runs": 0,
        "throttled": {},
        "verdicts": {},
    }
    (account,) = get(world, "/state")["accounts"]
    assert account["account_id"] == A
    assert set(account["collections"].values()) == {0}
    assert get(world, "/history")["entries"] == []
    assert get(world, "/faults")["faults"] == []
    world.ready_account(1, account_id=B)
    world.client(1, world.account(B).endpoint).connected("b")


def test_a_jitp_run_under_way_at_a_reset_does_not_come_to_pass() -> None:
    world = World()
    world.register_ca(world.account(A), mode="SNI_ONLY", template_body=template())
    world.client(0, world.account(A).endpoint).connect("robot")
    assert world.plane.provisioning_runs == 1

    answer(world, "POST", "/reset")
    world.register_ca(world.account(A), mode="SNI_ONLY", template_body=template())
    world.client(0, world.account(A).endpoint).connect("robot")
    world.advance(10)

    assert [each.verdict for each in world.history.select(kind="provisioning")] == ["provisioned"]
    assert list(world.account(A).things) == ["robot-000000"]


def test_a_will_and_a_session_do_not_outlive_a_reset(world: World) -> None:
    from devicesim.emulator.packets import Will

    endpoint = world.account(B).endpoint
    world.client(1, endpoint).connected("b3", will=Will(topic="wills/b", payload=b"gone"), clean_start=False)
    published: list[str] = []
    world.plane.published.append(lambda _partition, message, _now: published.append(message.topic))

    answer(world, "POST", "/reset")
    world.advance(10_000)

    assert [each for each in published if each.startswith("wills/")] == []


# --- what is asked wrongly ---


@pytest.mark.parametrize(
    ("method", "path", "query", "body", "status", "message"),
    [
        (
            "POST",
            "/faults",
            "",
            {"kind": "throttle_api", "operation": "CreateJob"},
            400,
            "operation is 'CreateJob', which",
        ),
        ("GET", "/nothing", "", None, 404, "no such path '/nothing', must be one of /health, /history"),
        ("POST", "/state", "", None, 405, "method 'POST' is not allowed, must be 'GET'"),
        ("PUT", "/faults", "", None, 405, "must be 'GET' or 'POST' or 'DELETE'"),
        ("GET", "/history", "acount=1", None, 400, "unknown parameter 'acount'"),
        ("GET", "/history", "limit=-1", None, 400, "parameter limit is '-1'"),
        ("GET", "/history", "after=x", None, 400, "parameter after is 'x'"),
        ("GET", "/health", "x=1", None, 400, "unknown parameter 'x'"),
        ("GET", "/state/nothing", f"account={A}", None, 404, "no such collection 'nothing', must be one of"),
        ("GET", "/state/_sequence", f"account={A}", None, 404, "no such collection"),
        ("GET", "/state/things", "", None, 400, "name 2 accounts, must name one"),
        ("GET", "/state/things", "account=999999999999", None, 400, "name 0 accounts"),
        ("GET", "/state/things", f"account={A}&after=nobody", None, 400, "parameter after is 'nobody'"),
        ("GET", "/explain", "", None, 400, "parameter certificate_id is missing"),
        ("GET", "/explain", "certificate_id=abc", None, 404, "no account has a certificate 'abc'"),
        ("POST", "/explain", "", {"certificate_pem": "no"}, 400, "certificate_pem is not a certificate"),
        ("POST", "/explain", "", {"certificate_pem": 1}, 400, "certificate_pem is 1, must be a string"),
        ("POST", "/faults", "", {}, 400, "kind is None, must be one of server_certificate_expiring"),
        ("POST", "/faults", "", {"kind": "throttle", "share": 2}, 400, "share is 2, must be above 0"),
        ("POST", "/faults", "", {"kind": "throttle", "share": "x"}, 400, "share is 'x', must be a float"),
        ("POST", "/faults", "", {"kind": "throttle", "count": True}, 400, "count is True, must be a int"),
        ("POST", "/faults", "", {"kind": "throttle", "invented": 1}, 400, "unknown parameter 'invented'"),
        ("DELETE", "/faults", "name=none", None, 404, r"no such fault 'none', there are \[\]"),
        ("POST", "/clock", "", {}, 400, "advance is None"),
        ("POST", "/clock", "", {"advance": -1}, 400, "advance is -1, must be a number of seconds"),
        ("POST", "/clock", "", {"advance": 1e300}, 400, "must be a number of seconds"),
        ("POST", "/clock", "", {"advance": True}, 400, "advance is True"),
        ("POST", "/reset", "", {"all": 1}, 400, "unknown parameter 'all'"),
        ("POST", "/reset", "", [], 400, "the request's body is list, must be a JSON object"),
    ],
)
def test_what_is_asked_wrongly_is_told(
    world: World, method: str, path: str, query: str, body: object, status: int, message: str
) -> None:
    with pytest.raises(AdminError, match=message) as caught:
        answer(world, method, path, query, body)

    assert caught.value.status == status


def test_a_body_that_is_no_json_is_told(world: World) -> None:
    with pytest.raises(AdminError, match="is not JSON"):
        AdminApp(world.core).routes.answer("POST", "/reset", "", b"{")


# --- over HTTP ---

OWN = {"host": "127.0.0.1:8080"}


async def request(
    world: World,
    method: str,
    path: str,
    *,
    headers: Mapping[str, str] = OWN,
    body: bytes = b"",
    hosts: frozenset[str] = frozenset(),
) -> tuple[int, str, bytes]:
    """Status, content type and body of an answer."""
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    await AdminApp(world.core, hosts=hosts)(scope, receive, send)
    answered = dict(sent[0]["headers"])
    if method != "HEAD":
        assert int(answered[b"content-length"]) == len(sent[1]["body"])
    return sent[0]["status"], answered[b"content-type"].decode(), sent[1]["body"]


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/health", 200), ("HEAD", "/x", 404), ("PUT", "/state", 405)]
)
async def test_as_an_asgi_application(world: World, method: str, path: str, status: int) -> None:
    answered, kind, body = await request(world, method, path)

    assert (answered, kind) == (status, "application/json")
    assert (body == b"") == (method == "HEAD")


@pytest.mark.parametrize(
    "headers",
    [
        OWN,
        {"host": "localhost:1"},
        {"host": "core.localhost"},
        {"host": "[::1]:8080"},
        {"host": "10.1.2.3"},
        {"host": "devicesim:8080"},
        {"host": "named.example"},
        {**OWN, "origin": "http://127.0.0.1:8080"},
        {**OWN, "sec-fetch-site": "same-origin"},
        {**OWN, "sec-fetch-site": "none"},
    ],
)
async def test_changes_are_taken_from_programs_and_from_the_ports_own_pages(
    world: World, headers: dict[str, str]
) -> None:
    status, _, _ = await request(world, "POST", "/reset", headers=headers, hosts=frozenset({"named.example"}))

    assert status == 200
    assert world.history.select() == []


@pytest.mark.parametrize("method", ["POST", "DELETE"])
@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "host '' is not this port's"),
        ({"host": "evil.example"}, "host 'evil.example' is not this port's"),
        ({"host": "evil.example:8080", "origin": "http://evil.example:8080"}, "is not this port's"),
        ({"host": "127.0.0.1.evil.example"}, "is not this port's"),
        ({"host": "[::1"}, "is not this port's"),
        ({**OWN, "origin": "http://evil.example"}, "origin 'http://evil.example' is another site"),
        ({**OWN, "origin": "http://127.0.0.1:9999"}, "is another site"),
        ({**OWN, "origin": "null"}, "origin 'null' is another site"),
        ({**OWN, "sec-fetch-site": "cross-site"}, "comes from a cross-site page"),
        ({**OWN, "sec-fetch-site": "same-site"}, "comes from a same-site page"),
    ],
)
async def test_a_change_that_a_web_page_may_have_sent_is_refused_before_it_is_done(
    world: World, method: str, headers: dict[str, str], message: str
) -> None:
    path = "/reset" if method == "POST" else "/faults"

    status, _, body = await request(world, method, path, headers=headers)

    assert status == 403
    assert message in json.loads(body)["error"]
    assert world.history.select()


async def test_a_body_that_is_too_long_is_refused(world: World) -> None:
    status, _, body = await request(world, "POST", "/explain", body=b" " * (MAX_BODY + 1))

    assert status == 413
    assert f"longer than {MAX_BODY} bytes" in json.loads(body)["error"]


async def test_a_bug_of_ours_is_a_500_and_not_the_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.core.faults, "clear", None)

    status, _, body = await request(world, "DELETE", "/faults")

    assert status == 500
    assert json.loads(body) == {"error": "devicesim failed on this request; its log says why"}


async def test_metrics_are_prometheus_text(world: World) -> None:
    status, kind, body = await request(world, "GET", "/metrics")

    assert (status, kind.split(";")[0]) == (200, "text/plain")
    lines = body.decode().splitlines()
    events = 'kind="connection",reason="",region="us-east-1",verdict="admitted"'
    assert f'devicesim_events_total{{account="{B}",{events}}} 1.0' in lines
    assert f'devicesim_connections{{account="{B}",region="us-east-1"}} 1.0' in lines
    assert f'devicesim_messages_total{{account="{B}",qos="1",region="us-east-1"}} 0.0' in lines
    assert f'devicesim_resources{{account="{A}",region="us-east-1",resource="certificate"}} 1.0' in lines
    assert (await request(world, "POST", "/metrics"))[0] == 405
