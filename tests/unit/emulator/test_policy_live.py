"""Live connections feel their policies: new versions, group policies, membership; and what a CONNECT asks for."""

import json
from typing import Any

import pytest

from devicesim.emulator.packets import ConnAck, Properties, ProtocolVersion, Publish
from devicesim.emulator.registry import Partition
from devicesim.emulator.settings import Settings
from devicesim.emulator.state.records import PropagatingAttribute, ThingPrincipalType
from tests.emulator_support import ALLOW_ALL, V5, Client, World, device, will

CONNECT_ALL = '{"Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}]}'
DENY_CONNECT = '{"Statement":[{"Effect":"Deny","Action":"iot:Connect","Resource":"*"}]}'


@pytest.fixture
def world() -> World:
    return World()


def account_with(world: World, *documents: str) -> Partition:
    """An account in which device 0 is ACTIVE and has these policies, and is attached to the thing ``c``."""
    account = world.account()
    world.register_ca(account, mode="SNI_ONLY")
    world.register_leaf(account, device(0), policy=None)
    for document in documents:
        world.allow(account, device(0), document)
    world.registry.things.create(account, "c")
    world.registry.things.attach_principal(account, "c", arn(account))
    return account


def arn(account: Partition) -> str:
    return account.certificate_arn(device(0).certificate_id)


class TestLiveConnections:
    def test_a_new_default_version_that_denies_ends_them(self, world: World) -> None:
        account = account_with(world, ALLOW_ALL)
        client = world.client(0, account.endpoint).connected("c")

        world.registry.policies.create_version(account, "p0", DENY_CONNECT)
        assert not client.closed

        world.registry.policies.set_default_version(account, "p0", 2)

        assert client.closed
        world.advance(0)
        assert "no policy allows iot:Connect" in world.last().detail

    def test_so_does_one_that_is_made_the_default_at_once(self, world: World) -> None:
        account = account_with(world, ALLOW_ALL)
        client = world.client(0, account.endpoint).connected("c")

        world.registry.policies.create_version(account, "p0", DENY_CONNECT, set_as_default=True)

        assert client.closed

    def test_one_that_still_allows_leaves_them(self, world: World) -> None:
        account = account_with(world, ALLOW_ALL)
        client = world.client(0, account.endpoint).connected("c")

        world.registry.policies.create_version(account, "p0", CONNECT_ALL, set_as_default=True)

        assert not client.closed
        client.send(Publish(topic="a"))  # which is not allowed any more
        assert client.closed

    def test_a_policy_of_a_group_above_is_felt_when_it_goes(self, world: World) -> None:
        account = account_with(world)
        registry = world.registry
        top = registry.thing_groups.create(account, "top")
        registry.thing_groups.create(account, "low", parent="top")
        registry.policies.create(account, "of-group", ALLOW_ALL)
        registry.policies.attach(account, "of-group", top.arn)
        registry.thing_groups.add_thing(account, "low", "c")
        client = world.client(0, account.endpoint).connected("c")

        registry.policies.detach(account, "of-group", top.arn)

        assert client.closed

    @pytest.mark.parametrize("how", ["leave", "delete", "deny"])
    def test_a_policy_of_a_group_is_felt(self, world: World, how: str) -> None:
        account = account_with(world)
        registry = world.registry
        group = registry.thing_groups.create(account, "g")
        registry.policies.create(account, "of-group", ALLOW_ALL)
        registry.policies.attach(account, "of-group", group.arn)
        registry.thing_groups.add_thing(account, "g", "c")
        client = world.client(0, account.endpoint).connected("c")

        if how == "leave":
            registry.thing_groups.remove_thing(account, "g", "c")
        elif how == "delete":
            registry.thing_groups.delete(account, "g")
        else:
            registry.policies.create(account, "deny", DENY_CONNECT)
            registry.policies.attach(account, "deny", group.arn)

        assert client.closed

    def test_other_devices_are_left_alone(self, world: World) -> None:
        account = account_with(world, ALLOW_ALL)
        world.register_leaf(account, device(1))
        mine = world.client(0, account.endpoint).connected("c")
        other = world.client(1, account.endpoint).connected("d")

        world.registry.policies.create_version(account, "p0", DENY_CONNECT, set_as_default=True)

        assert (mine.closed, other.closed) == (True, False)


class TestWhatConnectAsksFor:
    def policy(self, operator: str, values: list[str], key: str = "iot:ConnectAttributes") -> str:
        statements: list[dict[str, Any]] = [
            {
                "Effect": "Allow",
                "Action": "iot:Connect",
                "Resource": "*",
                "Condition": {operator: {key: values}},
            },
            {"Effect": "Allow", "Action": "iot:Publish", "Resource": "*"},
        ]
        return json.dumps({"Version": "2012-10-17", "Statement": statements})

    def accepted(self, world: World, version: ProtocolVersion, **connect: Any) -> bool:
        answer = world.client(0, world.account().endpoint, version=version).connect("c", **connect)
        return bool(answer) and isinstance(answer[0], ConnAck) and answer[0].reason_code == 0

    @pytest.mark.parametrize("version", list(ProtocolVersion))
    def test_a_persistent_session(self, world: World, version: ProtocolVersion) -> None:
        account_with(world, self.policy("ForAllValues:StringEquals", ["LastWill"]))

        assert self.accepted(world, version, clean_start=True)
        assert self.accepted(world, version, clean_start=True, will=will())
        assert not self.accepted(world, version, clean_start=False)
        assert not self.accepted(world, version, clean_start=False, will=will())

    def test_an_expiry_makes_a_session_persistent_and_resuming_does_only_where_the_settings_say_so(self) -> None:
        lenient = World(Settings(resumed_session_is_persistent_v5=False))
        account_with(lenient, self.policy("ForAllValues:StringEquals", ["LastWill"]))
        lasting = Properties(session_expiry_interval=60)

        assert not self.accepted(lenient, V5, clean_start=True, properties=lasting)
        assert self.accepted(lenient, V5, clean_start=False)

    @pytest.mark.parametrize("version", list(ProtocolVersion))
    def test_a_will(self, world: World, version: ProtocolVersion) -> None:
        account_with(world, self.policy("ForAllValues:StringEquals", ["PersistentConnect"]))

        assert self.accepted(world, version, clean_start=False)
        assert not self.accepted(world, version, will=will())

    def test_the_topic_of_the_will(self, world: World) -> None:
        topic = world.account().arn("topic", "wills/c")
        account_with(world, self.policy("ArnEquals", [topic], key="iot:LastWillTopic"))

        assert self.accepted(world, V5, will=will("wills/c"))
        assert not self.accepted(world, V5, will=will("wills/d"))
        assert not self.accepted(world, V5)

    def test_a_connection_is_judged_by_what_it_asked_for_later_too(self, world: World) -> None:
        account = account_with(world, ALLOW_ALL)
        persistent = world.client(0, account.endpoint).connected("c", clean_start=False)
        clean = world.client(0, account.endpoint).connected("d", clean_start=True)

        no_sessions = self.policy("ForAllValues:StringNotEquals", ["PersistentConnect"])
        world.registry.policies.create_version(account, "p0", no_sessions, set_as_default=True)

        assert (persistent.closed, clean.closed) == (True, False)


class TestExclusiveThing:
    """Developer guide, "associating a thing to an MQTT client connection": no client id needs to match."""

    POLICY = json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"},
                {
                    "Effect": "Allow",
                    "Action": "iot:Publish",
                    "Resource": "arn:aws:iot:*:*:topic/${iot:Connection.Thing.ThingName}",
                },
            ],
        }
    )

    @pytest.mark.parametrize(("kind", "closed"), [("EXCLUSIVE_THING", False), ("NON_EXCLUSIVE_THING", True)])
    def test_thing_variables(self, world: World, kind: str, closed: bool) -> None:
        account = world.account()
        world.register_ca(account, mode="SNI_ONLY")
        world.register_leaf(account, device(0), policy=self.POLICY)
        world.registry.things.create(account, "robot")
        world.registry.things.attach_principal(account, "robot", arn(account), ThingPrincipalType(kind))
        client = world.client(0, account.endpoint).connected("any")

        client.send(Publish(topic="robot"))

        assert client.closed is closed

    def test_group_policies(self, world: World) -> None:
        account = world.account()
        world.register_ca(account, mode="SNI_ONLY")
        world.register_leaf(account, device(0), policy=None)
        registry = world.registry
        registry.things.create(account, "robot")
        group = registry.thing_groups.create(account, "g")
        registry.thing_groups.add_thing(account, "g", "robot")
        registry.policies.create(account, "of-group", ALLOW_ALL)
        registry.policies.attach(account, "of-group", group.arn)
        registry.things.attach_principal(account, "robot", arn(account), ThingPrincipalType.EXCLUSIVE_THING)

        assert not world.client(0, account.endpoint).connected("any").closed


class TestEnrichment:
    def enriched(self, world: World, *attributes: PropagatingAttribute, client_id: str = "c") -> Publish:
        account = account_with(world, ALLOW_ALL)
        registry = world.registry
        registry.thing_types.create(account, "type", propagating_attributes=attributes)
        registry.things.update(account, "c", thing_type_name="type", attributes={"site": "b1"})
        world.register_leaf(account, device(1))
        watcher: Client = world.client(1, account.endpoint, version=V5).connected("w")
        watcher.subscribe("t")
        world.client(0, account.endpoint).connected(client_id).send(Publish(topic="t"))
        (packet,) = watcher.received()
        assert isinstance(packet, Publish)
        return packet

    def test_user_properties_of_thing_and_connection(self, world: World) -> None:
        packet = self.enriched(
            world,
            PropagatingAttribute(user_property_key="site", thing_attribute="site"),
            PropagatingAttribute(user_property_key="none", thing_attribute="missing"),
            PropagatingAttribute(user_property_key="client", connection_attribute="iot:ClientId"),
            PropagatingAttribute(user_property_key="thing", connection_attribute="iot:Thing.ThingName"),
        )

        assert packet.properties.user_properties == (("site", "b1"), ("client", "c"), ("thing", "c"))

    def test_nothing_of_a_connection_without_its_thing(self, world: World) -> None:
        attribute = PropagatingAttribute(user_property_key="client", connection_attribute="iot:ClientId")

        assert self.enriched(world, attribute, client_id="other").properties.user_properties == ()
