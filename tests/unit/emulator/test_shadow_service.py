"""Device shadows over MQTT, in a world without sockets."""

import json
from dataclasses import replace
from typing import Any

import pytest

from devicesim.emulator.faults import Fault, FaultKind
from devicesim.emulator.packets import Properties, PubAck, Publish, Will
from devicesim.emulator.quotas import Quotas
from devicesim.emulator.session import Message
from devicesim.emulator.settings import Settings
from devicesim.emulator.state.environment import ControlSettings
from tests.emulator_support import EPOCH, V5, B, Client, World, device

CLASSIC = "$aws/things/robot-1/shadow/"
NAMED = "$aws/things/robot-1/shadow/name/arm/"
DAY = 24 * 3600.0


@pytest.fixture
def world() -> World:
    return World()


def make_client(world: World, index: int = 0, **fields: Any) -> Client:
    account = world.account()
    if not account.cas:
        world.ready_account(0, 1, 2)
    return world.client(index, account.endpoint, **fields).connected(f"c{index}")


@pytest.fixture
def app(world: World) -> Client:
    """Sees everything that is told of the thing."""
    return make_client(world, 1).subscribe("$aws/things/robot-1/shadow/#")


def ask(client: Client, topic: str, document: object = "", *, qos: int = 0) -> None:
    payload = document.encode() if isinstance(document, str) else json.dumps(document).encode()
    client.send(Publish(topic=topic, payload=payload, qos=qos, packet_id=9 if qos else None))


def told(client: Client) -> list[tuple[str, Any]]:
    """What was told since the last call, without the requests themselves."""
    return [
        (topic.removeprefix("$aws/things/robot-1/shadow/"), json.loads(payload))
        for topic, payload in client.messages()
        if not topic.endswith(("/get", "/update", "/delete"))
    ]


def now_of(world: World) -> int:
    return int(world.epoch())


def test_an_update_is_accepted_told_and_kept(world: World, app: Client) -> None:
    robot = make_client(world)

    ask(robot, CLASSIC + "update", {"state": {"reported": {"on": True}}, "clientToken": "t"}, qos=1)

    stamp = {"timestamp": int(EPOCH.timestamp())}
    content = {"state": {"reported": {"on": True}}, "metadata": {"reported": {"on": stamp}}, "version": 1}
    assert told(app) == [
        ("update/accepted", {**content, **stamp, "clientToken": "t"}),
        ("update/documents", {"current": content, **stamp, "clientToken": "t"}),
    ]
    assert PubAck(packet_id=9) in robot.received()
    world.advance(30)
    ask(app, CLASSIC + "get", {"clientToken": "g"})
    assert told(app) == [("get/accepted", {**content, "timestamp": now_of(world), "clientToken": "g"})]


def test_a_difference_is_told_until_it_is_reported_away(world: World, app: Client) -> None:
    ask(app, CLASSIC + "update", {"state": {"reported": {"color": "green", "on": True}}})
    told(app)
    world.advance(5)
    ask(app, CLASSIC + "update", {"state": {"desired": {"color": "red"}}, "clientToken": "d"})
    stamp = {"timestamp": now_of(world)}

    answers = told(app)
    assert [topic for topic, _ in answers] == ["update/accepted", "update/delta", "update/documents"]
    assert answers[1][1] == {
        "version": 2,
        "state": {"color": "red"},
        "metadata": {"color": stamp},
        "clientToken": "d",
        **stamp,
    }
    ask(app, CLASSIC + "update", {"state": {"reported": {"on": False}}})
    assert ("update/delta", {"color": "red"}) in [(topic, body.get("state")) for topic, body in told(app)]
    ask(app, CLASSIC + "update", {"state": {"reported": {"color": "red"}}})
    assert "update/delta" not in dict(told(app))


def test_classic_and_named_shadows_share_nothing(world: World, app: Client) -> None:
    ask(app, CLASSIC + "update", {"state": {"desired": {"a": 1}}})
    ask(app, NAMED + "get")
    answers = told(app)

    assert answers[-1] == ("name/arm/get/rejected", {"code": 404, "message": "No shadow exists with name: 'arm'"})
    ask(app, NAMED + "update", {"state": {"desired": {"b": 1}}})
    assert [(topic, body["version"]) for topic, body in told(app) if "version" in body] == [
        ("name/arm/update/accepted", 1),
        ("name/arm/update/delta", 1),
    ]
    assert set(world.account().shadows) == {"robot-1", "robot-1/arm"}
    assert world.registry.shadows.named(world.account(), "robot-1") == ["arm"]


def test_a_get_of_nothing_is_rejected_as_it_was_measured_on_aws(world: World, app: Client) -> None:
    app.send(Publish(topic=CLASSIC + "get"))

    payload = dict(app.messages())[CLASSIC + "get/rejected"]
    # AWSCRT.jl's tests against AWS have this very text
    assert payload == b'{"code":404,"message":"No shadow exists with name: \'robot-1\'"}'


def test_a_version_that_is_not_the_shadows_is_a_conflict(world: World, app: Client) -> None:
    ask(app, CLASSIC + "update", {"state": {"desired": {"a": 1}}, "version": 0})
    ask(app, CLASSIC + "update", {"state": {"desired": {"a": 2}}, "version": 7, "clientToken": "t"})
    answers = told(app)

    assert answers[-1] == ("update/rejected", {"code": 409, "message": "Version conflict", "clientToken": "t"})
    ask(app, CLASSIC + "update", {"state": {"desired": {"a": 2}}, "version": 1})
    assert told(app)[0][1]["version"] == 2


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"{", 400),
        (b'{"state":{"desired":{"a":"\xff"}}}', 415),
        (b'{"state":{"desired":{"a":"' + b"x" * 8200 + b'"}}}', 413),
    ],
)
def test_a_bad_request_is_rejected_with_its_code(world: World, app: Client, payload: bytes, code: int) -> None:
    app.send(Publish(topic=CLASSIC + "update", payload=payload))

    (answer,) = told(app)
    assert answer[0] == "update/rejected"
    assert answer[1]["code"] == code
    assert not app.closed
    assert world.account().shadows == {}


def test_deleting_is_told_and_the_version_goes_on(world: World, app: Client) -> None:
    ask(app, CLASSIC + "update", {"state": {"desired": {"a": 1}}})
    told(app)
    ask(app, CLASSIC + "delete", "whatever")
    assert told(app) == [("delete/accepted", {"version": 1, "timestamp": now_of(world)})]
    ask(app, CLASSIC + "delete", {"clientToken": "again"})
    assert told(app) == [
        ("delete/rejected", {"code": 404, "message": "No shadow exists with name: 'robot-1'", "clientToken": "again"})
    ]

    ask(app, CLASSIC + "update", {"state": {"desired": {"a": 1}}})
    assert told(app)[0][1]["version"] == 3


def test_a_version_is_forgotten_two_days_after_the_shadow_was_deleted(world: World) -> None:
    app = make_client(world, 1)
    account = world.account()
    update = b'{"state":{"desired":{"a":1}}}'
    for name in ("x", "y"):
        world.registry.shadows.update(account, "robot-1", name, update)
        world.registry.shadows.delete(account, "robot-1", name)
    assert set(account.deleted_shadows) == {"robot-1/x", "robot-1/y"}
    app.lose()
    world.advance(2 * DAY - 1)
    assert world.registry.shadows.update(account, "robot-1", "x", update).current.version == 3
    world.advance(2)
    assert world.registry.shadows.update(account, "robot-1", "y", update).current.version == 1
    world.registry.shadows.delete(account, "robot-1", "x")
    world.advance(3 * DAY)
    world.registry.shadows.delete(account, "robot-1", "y")

    assert set(account.deleted_shadows) == {"robot-1/y"}


def test_a_deleted_version_need_not_count(world: World) -> None:
    world = World(Settings(control=ControlSettings(shadow_delete_is_a_version=False)))
    account = world.account()
    update = b'{"state":{"desired":{"a":1}}}'

    world.registry.shadows.update(account, "t", None, update)
    world.registry.shadows.delete(account, "t")

    assert world.registry.shadows.update(account, "t", None, update).current.version == 2


def test_a_thing_may_be_needed(world: World) -> None:
    world = World(Settings(control=ControlSettings(shadow_needs_thing=True)))
    app = make_client(world, 1).subscribe("$aws/things/robot-1/shadow/#")
    ask(app, CLASSIC + "update", {"state": {"desired": {"a": 1}}})
    assert told(app) == [("update/rejected", {"code": 404, "message": "Thing not found"})]

    world.registry.things.create(world.account(), "robot-1")
    ask(app, CLASSIC + "update", {"state": {"desired": {"a": 1}}})

    assert told(app)[0][0] == "update/accepted"


def test_deleting_the_thing_leaves_its_shadow(world: World) -> None:
    account = world.account()
    world.registry.things.create(account, "robot-1")
    world.registry.shadows.update(account, "robot-1", None, b'{"state":{"desired":{"a":1}}}')

    world.registry.things.delete(account, "robot-1")

    assert world.registry.shadows.get(account, "robot-1").version == 1


def test_who_subscribes_to_requests_sees_them_before_their_answer(world: World, app: Client) -> None:
    robot = make_client(world)

    ask(robot, CLASSIC + "update", {"state": {}})

    assert [topic for topic, _ in app.messages()] == [
        CLASSIC + "update",
        CLASSIC + "update/accepted",
        CLASSIC + "update/documents",
    ]


@pytest.mark.parametrize(
    "topic",
    [
        CLASSIC + "update/accepted",
        CLASSIC + "update/delta",
        CLASSIC + "put",
        CLASSIC + "name/arm",
        "$aws/things/a b/shadow/get",
        "$aws/things//shadow/get",
        "$aws/things/robot-1/shadow/name//get",
        "$aws/things/robot-1/jobs/get",
    ],
)
def test_any_other_reserved_topic_still_disconnects(world: World, app: Client, topic: str) -> None:
    robot = make_client(world)

    ask(robot, topic, {"state": {}})

    assert robot.closed
    assert app.messages() == []


def test_a_policy_that_does_not_allow_the_topic_comes_first(world: World) -> None:
    account = world.account()
    world.register_ca(account, mode="SNI_ONLY")
    arn = f"arn:aws:iot:us-east-1:{account.account_id}:"
    document = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"},
            {"Effect": "Allow", "Action": "iot:Publish", "Resource": f"{arn}topic/$aws/things/robot-1/shadow/get"},
        ],
    }
    world.register_leaf(account, device(0), policy=json.dumps(document))
    robot = world.client(0, account.endpoint).connected()
    ask(robot, CLASSIC + "get")
    assert not robot.closed

    ask(robot, CLASSIC + "update", {"state": {"reported": {"a": 1}}})

    assert robot.closed
    assert account.shadows == {}


def test_shadows_of_accounts_are_strangers(world: World, app: Client) -> None:
    world.ready_account(0, account_id=B)
    other = world.client(0, world.account(B).endpoint).connected("c1")
    other.subscribe("$aws/things/robot-1/shadow/#")

    ask(app, CLASSIC + "update", {"state": {"desired": {"a": 1}}})

    assert other.messages() == []
    ask(other, CLASSIC + "get")
    assert told(other)[-1][0] == "get/rejected"


def test_a_version_5_client_is_served_through_a_topic_alias(world: World) -> None:
    world.ready_account(0)
    robot = world.client(0, world.account().endpoint, version=V5).connected("r")
    robot.subscribe(CLASSIC + "get/accepted", CLASSIC + "get/rejected")
    robot.send(Publish(topic=CLASSIC + "get", properties=Properties(topic_alias=1)))
    robot.send(Publish(topic="", properties=Properties(topic_alias=1)))

    assert [topic for topic, _ in robot.messages()] == [CLASSIC + "get/rejected"] * 2


def test_the_service_itself_can_ask(world: World, app: Client) -> None:
    """As a rule's republish does."""
    request = Message(topic=CLASSIC + "update", payload=b'{"state":{"desired":{"a":1}}}')

    assert world.core.shadows.published(world.account(), request, world.now)
    assert not world.core.shadows.published(world.account(), Message(topic="a/b", payload=b""), world.now)

    assert [topic for topic, _ in told(app)] == ["update/accepted", "update/delta", "update/documents"]


def test_a_change_is_told_to_who_listens_to_every_message(world: World, app: Client) -> None:
    heard: list[str] = []
    world.plane.published.append(lambda _partition, message, _now: heard.append(message.topic))

    ask(app, CLASSIC + "update", {"state": {"reported": {"a": 1}}})

    assert heard == [CLASSIC + "update", CLASSIC + "update/accepted", CLASSIC + "update/documents"]


def test_quotas_and_faults_of_the_api_hit_requests_too() -> None:
    world = World(quotas=replace(Quotas.lifted(), shadow_requests_per_second=2))
    app = make_client(world, 1).subscribe("$aws/things/robot-1/shadow/#")
    for _ in range(3):
        ask(app, CLASSIC + "update", {"state": {"reported": {"a": 1}}, "clientToken": "t"})

    assert told(app)[-1] == ("update/rejected", {"code": 429, "message": "Rate exceeded", "clientToken": "t"})
    assert world.registry.shadows.get(world.account(), "robot-1").version == 2
    assert "throttled" in world.verdicts()

    world.advance(10)
    world.core.faults.inject(Fault(name="down", kind=FaultKind.API_UNAVAILABLE), world.now)
    ask(app, CLASSIC + "get")
    assert told(app)[-1][1]["code"] == 503


def test_a_will_on_a_request_topic_reaches_subscribers_and_no_shadow(world: World, app: Client) -> None:
    """Developer guide "device shadow service", note on wills (D)."""
    robot = world.client(0, world.account().endpoint)
    robot.connected("r", will=Will(topic=CLASSIC + "update", payload=b'{"state":{"reported":{"on":false}}}'))

    robot.lose()

    assert app.messages() == [(CLASSIC + "update", b'{"state":{"reported":{"on":false}}}')]
    assert world.account().shadows == {}


def test_a_request_keeps_its_properties_for_who_subscribes_to_it(world: World) -> None:
    make_client(world, 1)
    endpoint = world.account().endpoint
    watcher = world.client(0, endpoint, version=V5).connected("w").subscribe(CLASSIC + "update")
    robot = world.client(2, endpoint, version=V5).connected("r")
    told_with = Properties(user_properties=(("k", "v"),), message_expiry_interval=9, topic_alias=1)

    robot.send(Publish(topic=CLASSIC + "update", payload=b"{}", properties=told_with))

    (packet,) = [each for each in watcher.received() if isinstance(each, Publish)]
    assert packet.properties == Properties(user_properties=(("k", "v"),), message_expiry_interval=9)
