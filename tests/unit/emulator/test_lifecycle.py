"""Lifecycle events (developer guide, "Lifecycle events", D)."""

import json
from collections.abc import Mapping

import pytest

from devicesim.emulator.packets import (
    ConnAck,
    Properties,
    ProtocolVersion,
    Publish,
    Subscribe,
    Subscription,
    Unsubscribe,
)
from devicesim.emulator.settings import Settings
from devicesim.emulator.state.records import ThingPrincipalType
from tests.emulator_support import ALLOW_ALL, EPOCH, V5, V311, A, B, Client, World, device, will

VERSIONS = pytest.mark.parametrize("version", [V311, V5], ids=["3.1.1", "5"])


@pytest.fixture
def world() -> World:
    world = World()
    world.ready_account(0, 1, 2)
    return world


def new(world: World, index: int, version: ProtocolVersion = V311) -> Client:
    return world.client(index, world.account().endpoint, version=version)


def listener(world: World, *filters: str) -> Client:
    client = new(world, 2).connected("listener", keep_alive=1200).subscribe(*filters)
    client.received()
    return client


def events(client: Client) -> list[tuple[str, Mapping[str, object]]]:
    return [(topic, json.loads(payload)) for topic, payload in client.messages()]


@VERSIONS
def test_connecting_and_disconnecting_are_told_as_documented(world: World, version: ProtocolVersion) -> None:
    watcher = listener(world, "$aws/events/presence/+/c")
    client = new(world, 0, version).connected("c")
    client.disconnect()
    (first, connected), (second, disconnected) = events(watcher)
    session = connected["sessionIdentifier"]

    assert (first, second) == ("$aws/events/presence/connected/c", "$aws/events/presence/disconnected/c")
    assert isinstance(session, str)
    assert connected == {
        "clientId": "c",
        "timestamp": EPOCH.timestamp() * 1000,
        "eventType": "connected",
        "sessionIdentifier": session,
        "principalIdentifier": device(0).certificate_id,
        "ipAddress": "203.0.113.7",
        "versionNumber": 0,
    }
    assert disconnected == {
        "clientId": "c",
        "timestamp": EPOCH.timestamp() * 1000,
        "eventType": "disconnected",
        "sessionIdentifier": session,
        "principalIdentifier": device(0).certificate_id,
        "clientInitiatedDisconnect": True,
        "disconnectReason": "CLIENT_INITIATED_DISCONNECT",
        "versionNumber": 0,
    }


def reasons(watcher: Client) -> list[tuple[object, object]]:
    return [(told["disconnectReason"], told["clientInitiatedDisconnect"]) for _, told in events(watcher)]


@VERSIONS
def test_the_reason_of_each_disconnect_is_told(world: World, version: ProtocolVersion) -> None:
    watcher = listener(world, "$aws/events/presence/disconnected/c")

    new(world, 0, version).connected("c").lose()
    assert reasons(watcher) == [("CONNECTION_LOST", False)]

    new(world, 0, version).connected("c").send_bytes(b"\xc1\x00")
    assert reasons(watcher) == [("CLIENT_ERROR", False)]

    new(world, 0, version).connected("c")
    new(world, 1, version).connected("c")
    assert reasons(watcher) == [("DUPLICATE_CLIENTID", False)]

    new(world, 0, version).connected("c", keep_alive=30)
    assert reasons(watcher) == [("DUPLICATE_CLIENTID", False)]
    world.advance(46)
    assert reasons(watcher) == [("MQTT_KEEP_ALIVE_TIMEOUT", False)]

    new(world, 0, version).connected("c")
    world.update(world.account(), device(0), "INACTIVE")
    world.advance(0)
    assert reasons(watcher) == [("AUTH_ERROR", False)]

    world.update(world.account(), device(0), "ACTIVE")
    new(world, 0, version).connected("c")
    assert world.plane.delete_connection(world.account(), "c", clean_session=False, prevent_will=False, now=world.now)
    assert reasons(watcher) == [("API_INITIATED_DISCONNECT", False)]


def test_a_client_that_may_not_publish_is_forbidden_access() -> None:
    world = World()
    account = world.ready_account(2)
    connect_only = ALLOW_ALL.replace('"iot:*"', '"iot:Connect"')
    world.register_leaf(account, device(0), policy=connect_only)
    watcher = listener(world, "$aws/events/presence/disconnected/c")
    new(world, 0).connected("c").send(Publish(topic="t"))

    assert reasons(watcher) == [("FORBIDDEN_ACCESS", False)]


class TestVersionNumbers:
    """ "A monotonically increasing long integer value for each client ID connection" """

    def versions(self, watcher: Client) -> list[object]:
        return [told["versionNumber"] for _, told in events(watcher)]

    def test_they_count_connections_and_are_the_same_for_connect_and_disconnect(self, world: World) -> None:
        watcher = listener(world, "$aws/events/presence/+/c")
        for _ in range(3):
            new(world, 0).connected("c").disconnect()

        assert self.versions(watcher) == [0, 0, 1, 1, 2, 2]

    def test_the_older_of_two_connections_ends_before_the_newer_begins(self, world: World) -> None:
        watcher = listener(world, "$aws/events/presence/+/c")
        new(world, 0).connected("c")
        new(world, 1).connected("c")
        kinds = [(told["eventType"], told["versionNumber"]) for _, told in events(watcher)]

        assert kinds == [("connected", 0), ("disconnected", 0), ("connected", 1)]

    def test_they_begin_again_after_an_hour_away(self, world: World) -> None:
        watcher = listener(world, "$aws/events/presence/connected/+")
        new(world, 0).connected("c").disconnect()
        new(world, 1).connected("other").disconnect()
        world.advance(1200)
        new(world, 1).connected("other").disconnect()
        watcher = listener(world, "$aws/events/presence/connected/+")
        world.advance(1700)
        watcher = listener(world, "$aws/events/presence/connected/c", "$aws/events/presence/connected/other")
        world.advance(701)
        watcher.received()
        new(world, 0).connected("c")
        new(world, 1).connected("other")

        assert self.versions(watcher) == [0, 2]

    def test_those_of_a_persistent_session_go_on_as_long_as_it_lasts(self) -> None:
        world = World(Settings(persistent_session_seconds=8000))
        world.ready_account(0, 2)
        new(world, 0).connected("c", clean_start=False).lose()
        world.advance(7999)
        watcher = listener(world, "$aws/events/presence/connected/c")
        new(world, 0).connected("c", clean_start=False).lose()
        world.advance(8001)
        watcher.received()
        watcher = listener(world, "$aws/events/presence/connected/c")
        new(world, 0).connected("c", clean_start=False)

        assert self.versions(watcher) == [0]

    def test_the_memory_of_those_who_left_does_not_grow(self, world: World) -> None:
        for number in range(50):
            new(world, 0).connected(f"c{number}").disconnect()
            world.advance(600)
        broker = new(world, 1).connected("n").connection.broker

        assert broker is not None
        assert len(broker._lifecycle._versions) <= 7


@VERSIONS
def test_a_session_identifier_lasts_as_long_as_its_session(world: World, version: ProtocolVersion) -> None:
    watcher = listener(world, "$aws/events/presence/connected/c")
    lasting = {"clean_start": False, "properties": Properties(session_expiry_interval=60)}
    for _ in range(2):
        new(world, 0, version).connected("c", **lasting).lose()
    new(world, 0, version).connected("c")
    one, two, three = [told["sessionIdentifier"] for _, told in events(watcher)]

    assert one == two != three


class TestConnectFailed:
    def expect(self, world: World, client_id: str = "c", **fields: object) -> Mapping[str, object]:
        watcher = listener(world, "$aws/events/presence/#")
        answer = new(world, 0, V5).connect(client_id, **fields)
        ((topic, told),) = events(watcher)

        assert isinstance(answer[0], ConnAck)
        assert answer[0].reason_code == 0x87
        assert topic == f"$aws/events/presence/connect_failed/{client_id}"
        return told

    def test_a_policy_that_denies_the_connection(self, world: World) -> None:
        deny = ALLOW_ALL.replace("Allow", "Deny").replace('"*"', '"arn:aws:iot:*:*:client/c"')
        world.allow(world.account(), device(0), deny)
        told = self.expect(world)

        assert isinstance(told["sessionIdentifier"], str)
        assert told == {
            "clientId": "c",
            "timestamp": EPOCH.timestamp() * 1000,
            "eventType": "connect_failed",
            "connectFailureReason": "AUTHORIZATION_FAILED",
            "sessionIdentifier": told["sessionIdentifier"],
            "principalIdentifier": device(0).certificate_id,
            "ipAddress": "203.0.113.7",
        }

    def test_a_policy_that_denies_the_publishing_of_the_will(self, world: World) -> None:
        deny = ALLOW_ALL.replace("Allow", "Deny").replace('"*"', '"arn:aws:iot:*:*:topic/wills/*"')
        world.allow(world.account(), device(0), deny)

        assert self.expect(world, will=will())["connectFailureReason"] == "AUTHORIZATION_FAILED"

    def test_a_certificate_that_is_not_active_is_no_such_event(self, world: World) -> None:
        """It is AuthNError (§8): the client is not known well enough to be told of."""
        watcher = listener(world, "$aws/events/presence/#")
        world.update(world.account(), device(0), "INACTIVE")
        new(world, 0).connect("c")

        assert events(watcher) == []


def test_subscribing_and_unsubscribing_are_told_with_what_was_granted(world: World) -> None:
    watcher = listener(world, "$aws/events/subscriptions/+/c")
    client = new(world, 0, V5).connected("c")
    filters = tuple(Subscription(topic_filter=each) for each in ("a/#", "b/#/c", "$share/g/b"))
    client.send(Subscribe(packet_id=1, subscriptions=filters))
    client.send(Unsubscribe(packet_id=2, topic_filters=("a/#", "never")))
    client.send(Unsubscribe(packet_id=3, topic_filters=("never",)))
    (first, subscribed), (second, unsubscribed) = events(watcher)

    assert (first, second) == ("$aws/events/subscriptions/subscribed/c", "$aws/events/subscriptions/unsubscribed/c")
    assert subscribed == {
        "clientId": "c",
        "timestamp": EPOCH.timestamp() * 1000,
        "eventType": "subscribed",
        "sessionIdentifier": subscribed["sessionIdentifier"],
        "principalIdentifier": device(0).certificate_id,
        "topics": ["a/#", "$share/g/b"],
    }
    assert unsubscribed["eventType"] == "unsubscribed"
    assert unsubscribed["topics"] == ["a/#"]


@pytest.mark.parametrize("client_id", ["a+b", "a#"])
def test_client_ids_with_wildcards_have_no_events(world: World, client_id: str) -> None:
    watcher = new(world, 2).connected("listener")
    filters = ("$aws/events/presence/#", "$aws/events/subscriptions/#")
    watcher.send(Subscribe(packet_id=1, subscriptions=tuple(Subscription(topic_filter=each) for each in filters)))
    watcher.received()
    new(world, 0).connected(client_id).subscribe("t").disconnect()

    assert events(watcher) == []


def test_the_thing_is_named_only_where_it_has_the_certificate_for_itself(world: World) -> None:
    account = world.account()
    world.registry.things.create(account, "robot")
    arn = account.certificate_arn(device(0).certificate_id)
    watcher = listener(world, "$aws/events/presence/connected/+")
    names = []
    for kind in (ThingPrincipalType.NON_EXCLUSIVE_THING, ThingPrincipalType.EXCLUSIVE_THING):
        world.registry.things.attach_principal(account, "robot", arn, kind)
        new(world, 0).connected("c").disconnect()
        names += [told.get("thingName") for _, told in events(watcher)]
        world.registry.things.detach_principal(account, "robot", arn)

    assert names == [None, "robot"]


def test_events_stay_in_their_account(world: World) -> None:
    world.ready_account(0, account_id=B)
    watcher = listener(world, "$aws/events/+/+/c")
    world.client(0, world.account(B).endpoint).connected("c").disconnect()

    assert events(watcher) == []
    assert world.account(A).endpoint != world.account(B).endpoint


def test_devices_cannot_forge_them(world: World) -> None:
    watcher = listener(world, "$aws/events/presence/connected/x")
    client = new(world, 0).connected("c")
    client.send(Publish(topic="$aws/events/presence/connected/x", payload=b"{}"))

    assert client.closed
    assert events(watcher) == []
