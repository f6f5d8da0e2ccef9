"""What a connection costs does not depend on how much an account holds: nothing on the path looks through its dicts.

How many a second that makes is scripts/bench_emulator.py's to say; here the dicts themselves refuse to be looked
through, which no machine and no noise can hide.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from devicesim.emulator.packets import Publish, Subscribe, Subscription
from devicesim.emulator.registry import Partition
from devicesim.pki.identity import certificate_pem
from tests.emulator_support import ALLOW_ALL, A, World, device, template

GROWING = (
    "cas",
    "certificates",
    "policies",
    "things",
    "thing_groups",
    "tags",
    "shadows",
    "deleted_shadows",
    "ownership_tokens",
    "claims",
    "transferred_certificates",
    "cas_by_subject",
    "certificates_by_ca",
    "policies_of_target",
    "targets_of_policy",
    "things_of_principal",
    "principals_of_thing",
    "groups_of_thing",
    "things_of_group",
    "things_of_type",
    "things_of_billing_group",
)
"""Dicts with a key for each device, or for each CA."""
BIG_MEMBERS = (
    "certificates_by_ca",
    "targets_of_policy",
    "things_of_group",
    "things_of_type",
    "things_of_billing_group",
)
"""Dicts of which one member can have a key for each device."""


def _scan(*_args: object) -> NoReturn:
    raise AssertionError("a dict that grows with the account's devices is looked through")


class NoScan(dict[Any, Any]):
    """Answers for one key, and refuses everything that goes over all."""

    __iter__ = keys = values = items = copy = __reversed__ = __or__ = __ror__ = _scan


class NoScanDefault(defaultdict[Any, Any]):
    __iter__ = keys = values = items = copy = __reversed__ = __or__ = __ror__ = _scan


def guard(account: Partition) -> None:
    """From now on, nobody may look through what grows."""
    for name in GROWING:
        held = getattr(account, name)
        if isinstance(held, defaultdict):
            big = name in BIG_MEMBERS
            members = {key: NoScan(value) if big else value for key, value in dict.items(held)}
            setattr(account, name, NoScanDefault(NoScan if big else dict, members))
        else:
            setattr(account, name, NoScan(held))


def crowd(world: World, account: Partition) -> None:
    """Some of everything."""
    for index in range(50, 60):
        world.registry.certificates.register_without_ca(account, certificate_pem(device(index, "Crowd").certificate))
        world.allow(account, device(index, "Crowd"))
        world.registry.things.create(account, f"thing-{index}")
        world.registry.things.attach_principal(
            account, f"thing-{index}", account.certificate_arn(device(index, "Crowd").certificate_id)
        )


def test_the_guard_bites() -> None:
    world = World()
    account = world.account()
    crowd(world, account)
    guard(account)
    acts: list[Callable[[], object]] = [
        lambda: list(account.certificates),
        lambda: list(account.certificates.values()),
        lambda: [name for name, _ in account.targets_of_policy.items()],
        lambda: list(account.targets_of_policy["p0"]),
        lambda: sorted(account.things),
        lambda: {**account.things},
    ]
    for act in acts:
        with pytest.raises(AssertionError):
            act()
    assert len(account.certificates) == 10
    assert device(50, "Crowd").certificate_id in account.certificates


def test_jitr_from_the_first_connection_to_messages() -> None:
    world = World()
    account = world.account(A)
    crowd(world, account)
    world.register_ca(account)
    guard(account)
    for _ in range(2):
        assert world.client(0, account.endpoint).connect() == []
    assert world.last().account_id == A
    world.update(account, device(0), "ACTIVE")
    world.registry.policies.attach(account, "p0", account.certificate_arn(device(0).certificate_id))
    client = world.client(0, account.endpoint).connected("one").subscribe("a/#")
    client.send(Publish(topic="a/b", payload=b"x"))
    assert client.messages() == [("a/b", b"x")]
    client.send(Subscribe(packet_id=2, subscriptions=(Subscription(topic_filter="b", qos=0),)))
    client.disconnect()
    world.client(0, None).connected("without a server name")
    world.update(account, device(0), "REVOKED")
    assert world.client(0, account.endpoint).connect() == []


@pytest.mark.parametrize("chain", [False, True], ids=["leaf only", "with chain"])
@pytest.mark.parametrize("named", [True, False], ids=["SNI", "no SNI"])
def test_first_connections_of_every_kind(named: bool, chain: bool) -> None:
    world = World()
    account = world.account()
    crowd(world, account)
    world.register_ca(account)
    guard(account)
    assert world.client(0, account.endpoint if named else None, chain=chain).connect() == []
    assert (device(0).certificate_id in account.certificates) is (named or chain)


def test_jitp_with_thing_group_type_and_policies() -> None:
    world = World()
    account = world.account()
    crowd(world, account)
    world.registry.thing_types.create(account, "arm")
    world.registry.thing_groups.create(account, "all")
    world.registry.billing_groups.create(account, "bill")
    thing = {
        "ThingName": {"Ref": "AWS::IoT::Certificate::CommonName"},
        "ThingTypeName": "arm",
        "ThingGroups": ["all"],
        "BillingGroup": "bill",
        "AttributePayload": {"a": "b"},
    }
    world.register_ca(account, mode="SNI_ONLY", template_body=template(thing=thing))
    guard(account)
    for index in (0, 1):
        world.client(index, account.endpoint).connect()
        world.advance(2)
        assert world.last().verdict == "provisioned", world.last()
        world.client(index, account.endpoint).connected(f"robot-{index:06d}")


def test_a_failed_run_is_taken_back_without_a_look_around() -> None:
    world = World()
    account = world.account()
    crowd(world, account)
    world.registry.policies.create(account, "spare", ALLOW_ALL)
    body = template(policy={"PolicyName": "nobody"})
    world.register_ca(account, mode="SNI_ONLY", template_body=body)
    guard(account)
    world.client(0, account.endpoint).connect()
    world.advance(2)

    assert world.last().verdict == "provisioning_failed"
