"""Billing groups."""

from devicesim.emulator.registry import Partition, Registry
from devicesim.emulator.state.environment import ControlSettings
from tests.control_support import REGION, A, code_of, make_registry


def test_create_is_idempotent_for_one_configuration(registry: Registry, a: Partition) -> None:
    group = registry.billing_groups.create(a, "lab", description="d", tags=[("k", "v")])

    assert registry.billing_groups.create(a, "lab", description="d") is group
    assert code_of(lambda: registry.billing_groups.create(a, "lab")) == "ResourceAlreadyExistsException"
    assert group.arn == f"arn:aws:iot:{REGION}:{A}:billinggroup/lab"
    assert registry.tags.of(a, group.arn) == {"k": "v"}


def test_update_counts_versions_and_keeps_what_is_left_out(registry: Registry, a: Partition) -> None:
    registry.billing_groups.create(a, "lab", description="d")

    assert registry.billing_groups.update(a, "lab", description=None, expected_version=1).description == "d"
    changed = registry.billing_groups.update(a, "lab", description="e", expected_version=2)

    assert (changed.description, changed.version) == ("e", 3)
    conflict = code_of(lambda: registry.billing_groups.update(a, "lab", description="f", expected_version=2))
    assert conflict == "VersionConflictException"
    assert code_of(lambda: registry.billing_groups.update(a, "x", description="f")) == "ResourceNotFoundException"


def test_a_thing_is_in_one_billing_group_at_most(registry: Registry, a: Partition) -> None:
    for name in ("lab", "field"):
        registry.billing_groups.create(a, name)
    registry.things.create(a, "robot", billing_group_name="lab")

    assert code_of(lambda: registry.billing_groups.add_thing(a, "field", "robot")) == "InvalidRequestException"
    registry.billing_groups.add_thing(a, "lab", "robot")
    registry.billing_groups.remove_thing(a, "field", "robot")
    assert list(a.things_of_billing_group) == ["lab"]

    registry.billing_groups.remove_thing(a, "lab", "robot")
    registry.billing_groups.add_thing(a, "field", "robot")
    assert registry.things.get(a, "robot").billing_group_name == "field"
    assert a.things_of_billing_group == {"field": {"robot": None}}


def test_a_thing_moves_where_the_settings_say_so(a: Partition) -> None:
    registry = make_registry(settings=ControlSettings(billing_group_moves=True))
    a = registry.partition(A, REGION)
    for name in ("lab", "field"):
        registry.billing_groups.create(a, name)
    registry.things.create(a, "robot", billing_group_name="lab")

    registry.billing_groups.add_thing(a, "field", "robot")

    assert a.things_of_billing_group == {"field": {"robot": None}}


def test_one_with_things_is_not_deleted(registry: Registry, a: Partition) -> None:
    registry.billing_groups.create(a, "lab")
    registry.things.create(a, "robot", billing_group_name="lab")

    assert code_of(lambda: registry.billing_groups.delete(a, "lab")) == "InvalidRequestException"
    assert "lab" in a.billing_groups


def test_deleting_leaves_nothing_behind() -> None:
    registry = make_registry(settings=ControlSettings(billing_group_with_things="empty"))
    a = registry.partition(A, REGION)
    group = registry.billing_groups.create(a, "lab", tags=[("k", "v")])
    registry.things.create(a, "robot", billing_group_name="lab")

    assert code_of(lambda: registry.billing_groups.delete(a, "lab", expected_version=7)) == "VersionConflictException"
    registry.billing_groups.delete(a, "lab")
    registry.billing_groups.delete(a, "lab")

    assert registry.things.get(a, "robot").billing_group_name is None
    assert (a.billing_groups, a.things_of_billing_group, a.tags) == ({}, {}, {})
    assert code_of(lambda: registry.tags.of(a, group.arn)) == "ResourceNotFoundException"
    registry.things.delete(a, "robot")


def test_what_does_not_exist_is_not_found(registry: Registry, a: Partition) -> None:
    registry.billing_groups.create(a, "lab")

    assert code_of(lambda: registry.billing_groups.add_thing(a, "lab", "robot")) == "ResourceNotFoundException"
    assert code_of(lambda: registry.billing_groups.add_thing(a, "x", "robot")) == "ResourceNotFoundException"
    assert code_of(lambda: registry.billing_groups.get(a, "x")) == "ResourceNotFoundException"
    assert code_of(lambda: registry.things.create(a, "t", billing_group_name="x")) == "ResourceNotFoundException"


def test_the_index_is_rebuilt_from_the_things(registry: Registry, a: Partition) -> None:
    registry.billing_groups.create(a, "lab")
    registry.things.create(a, "robot", billing_group_name="lab")
    a.things_of_billing_group.clear()

    a.rebuild_indexes()

    assert a.things_of_billing_group == {"lab": {"robot": None}}
