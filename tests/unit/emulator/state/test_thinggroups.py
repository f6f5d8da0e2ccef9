"""Thing types and thing groups, which provisioning templates refer to."""

from collections.abc import Callable

import pytest

from devicesim.emulator.registry import Partition, Registry
from devicesim.emulator.state.records import PropagatingAttribute
from tests.control_support import Clock, code_of

ALLOW = '{"Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}'


class TestThingTypes:
    def test_create_is_idempotent_for_one_configuration(self, registry: Registry, a: Partition) -> None:
        arm = registry.thing_types.create(a, "arm", description="an arm", searchable_attributes=["size"])

        assert registry.thing_types.create(a, "arm", description="an arm", searchable_attributes=["size"]) is arm
        assert code_of(lambda: registry.thing_types.create(a, "arm")) == "ResourceAlreadyExistsException"

    def test_three_searchable_attributes_at_most(self, registry: Registry, a: Partition) -> None:
        code = code_of(lambda: registry.thing_types.create(a, "arm", searchable_attributes=list("abcd")))

        assert code == "InvalidRequestException"

    def test_deletion_wants_deprecation_five_minutes_and_no_things(
        self, registry: Registry, a: Partition, clock: Clock
    ) -> None:
        registry.thing_types.create(a, "arm")
        registry.things.create(a, "robot", thing_type_name="arm")
        in_use = code_of(lambda: registry.thing_types.delete(a, "arm"))
        registry.thing_types.deprecate(a, "arm")
        clock.advance(299)
        registry.thing_types.deprecate(a, "arm")  # again, which does not start the time anew
        too_soon = code_of(lambda: registry.thing_types.delete(a, "arm"))
        clock.advance(1)
        with_things = code_of(lambda: registry.thing_types.delete(a, "arm"))
        registry.things.update(a, "robot", remove_thing_type=True)
        registry.thing_types.delete(a, "arm")

        assert (in_use, too_soon, with_things) == ("InvalidRequestException",) * 3
        assert a.thing_types == {}

    def test_unknown_is_not_found(self, registry: Registry, a: Partition) -> None:
        calls: list[Callable[[], object]] = [
            lambda: registry.thing_types.get(a, "none"),
            lambda: registry.thing_types.deprecate(a, "none"),
            lambda: registry.thing_types.delete(a, "none"),
        ]

        assert {code_of(call) for call in calls} == {"ResourceNotFoundException"}


class TestThingGroups:
    def test_create_is_idempotent_for_one_configuration(self, registry: Registry, a: Partition) -> None:
        robots = registry.thing_groups.create(a, "robots", description="all of them")

        assert registry.thing_groups.create(a, "robots", description="all of them") is robots
        assert code_of(lambda: registry.thing_groups.create(a, "robots")) == "ResourceAlreadyExistsException"

    def test_hierarchy_is_told_upwards_and_downwards(self, registry: Registry, a: Partition) -> None:
        registry.thing_groups.create(a, "root")
        registry.thing_groups.create(a, "child", parent="root")
        leaf = registry.thing_groups.create(a, "leaf", parent="child")

        assert [group.name for group in registry.thing_groups.ancestors(a, leaf)] == ["root", "child"]
        assert [group.name for group in registry.thing_groups.children(a, "root")] == ["child"]
        assert [group.name for group in registry.thing_groups.descendants(a, "root")] == ["child", "leaf"]

    def test_parent_must_exist(self, registry: Registry, a: Partition) -> None:
        code = code_of(lambda: registry.thing_groups.create(a, "child", parent="none"))

        assert code == "ResourceNotFoundException"

    def test_group_with_children_can_not_be_deleted(self, registry: Registry, a: Partition) -> None:
        registry.thing_groups.create(a, "root")
        registry.thing_groups.create(a, "child", parent="root")

        assert code_of(lambda: registry.thing_groups.delete(a, "root")) == "InvalidRequestException"

    def test_deletion_leaves_no_trace(self, registry: Registry, a: Partition) -> None:
        group = registry.thing_groups.create(a, "robots", tags=[("team", "lab")])
        registry.things.create(a, "robot")
        registry.thing_groups.add_thing(a, "robots", "robot")
        registry.policies.create(a, "allow", ALLOW)
        registry.policies.attach(a, "allow", group.arn)

        registry.thing_groups.delete(a, "robots")
        registry.thing_groups.delete(a, "robots")  # none is no error

        assert (a.thing_groups, a.groups_of_thing, a.things_of_group, a.tags) == ({}, {}, {}, {})
        assert (a.policies_of_target, a.targets_of_policy) == ({}, {})

    def test_expected_version_must_be_the_version(self, registry: Registry, a: Partition) -> None:
        registry.thing_groups.create(a, "robots")

        code = code_of(lambda: registry.thing_groups.delete(a, "robots", expected_version=2))

        assert code == "VersionConflictException"

    def test_thing_is_in_one_group_of_a_hierarchy(self, registry: Registry, a: Partition) -> None:
        registry.things.create(a, "robot")
        registry.thing_groups.create(a, "root")
        registry.thing_groups.create(a, "child", parent="root")
        registry.thing_groups.add_thing(a, "child", "robot")
        registry.thing_groups.add_thing(a, "child", "robot")  # again, which changes nothing

        assert code_of(lambda: registry.thing_groups.add_thing(a, "root", "robot")) == "InvalidRequestException"
        assert a.groups_of_thing == {"robot": {"child": None}}

    def test_thing_is_in_ten_groups_at_most(self, registry: Registry, a: Partition) -> None:
        registry.things.create(a, "robot")
        for number in range(11):
            registry.thing_groups.create(a, f"group-{number}")
        for number in range(10):
            registry.thing_groups.add_thing(a, f"group-{number}", "robot")

        assert code_of(lambda: registry.thing_groups.add_thing(a, "group-10", "robot")) == "InvalidRequestException"

    def test_thing_leaves_a_group_it_may_not_be_in(self, registry: Registry, a: Partition) -> None:
        registry.things.create(a, "robot")
        registry.thing_groups.create(a, "robots")
        registry.thing_groups.add_thing(a, "robots", "robot")
        for _ in range(2):
            registry.thing_groups.remove_thing(a, "robots", "robot")

        assert (a.groups_of_thing, a.things_of_group) == ({}, {})

    @pytest.mark.parametrize("verb", ["add_thing", "remove_thing"])
    def test_unknown_thing_or_group_is_not_found(self, registry: Registry, a: Partition, verb: str) -> None:
        registry.things.create(a, "robot")
        registry.thing_groups.create(a, "robots")
        change = getattr(registry.thing_groups, verb)

        assert code_of(lambda: change(a, "none", "robot")) == "ResourceNotFoundException"
        assert code_of(lambda: change(a, "robots", "none")) == "ResourceNotFoundException"


class TestUpdate:
    def test_attributes_replace_or_merge_and_an_empty_value_removes(self, registry: Registry, a: Partition) -> None:
        registry.thing_groups.create(a, "g", description="d", attributes={"x": "1", "y": "2"})

        registry.thing_groups.update(a, "g", attributes={"x": "", "z": "3"}, merge=True, expected_version=1)
        merged = registry.thing_groups.get(a, "g")
        replaced = registry.thing_groups.update(a, "g", description="e", attributes={"w": "4"})

        assert (merged.attributes, merged.description, merged.version) == ({"y": "2", "z": "3"}, "d", 2)
        assert (replaced.attributes, replaced.description, replaced.version) == ({"w": "4"}, "e", 3)

    def test_another_version_is_a_conflict_and_changes_nothing(self, registry: Registry, a: Partition) -> None:
        group = registry.thing_groups.create(a, "g")

        conflict = code_of(lambda: registry.thing_groups.update(a, "g", description="x", expected_version=2))

        assert conflict == "VersionConflictException"
        assert registry.thing_groups.get(a, "g") is group

    def test_too_many_attributes(self, registry: Registry, a: Partition) -> None:
        registry.thing_groups.create(a, "g")
        many = {f"k{number}": "v" for number in range(51)}

        assert code_of(lambda: registry.thing_groups.update(a, "g", attributes=many)) == "InvalidRequestException"
        assert code_of(lambda: registry.thing_groups.create(a, "h", attributes=many)) == "InvalidRequestException"


class TestLimits:
    def test_hierarchy_has_seven_levels(self, registry: Registry, a: Partition) -> None:
        parent = None
        for level in range(1, 8):
            registry.thing_groups.create(a, f"l{level}", parent=parent)
            parent = f"l{level}"

        assert code_of(lambda: registry.thing_groups.create(a, "l8", parent="l7")) == "InvalidRequestException"

    def test_a_group_has_a_hundred_children(self, registry: Registry, a: Partition) -> None:
        registry.thing_groups.create(a, "top")
        for number in range(100):
            registry.thing_groups.create(a, f"c{number}", parent="top")

        assert code_of(lambda: registry.thing_groups.create(a, "one-more", parent="top")) == "InvalidRequestException"

    def test_a_group_has_two_policies(self, registry: Registry, a: Partition) -> None:
        group = registry.thing_groups.create(a, "g")
        for number in range(3):
            registry.policies.create(a, f"p{number}", ALLOW)
        registry.policies.attach(a, "p0", group.arn)
        registry.policies.attach(a, "p1", group.arn)

        assert code_of(lambda: registry.policies.attach(a, "p2", group.arn)) == "LimitExceededException"


class TestGroupsOfAThing:
    @pytest.fixture(autouse=True)
    def groups(self, registry: Registry, a: Partition) -> None:
        for name in ("a", "b", "c"):
            registry.thing_groups.create(a, name)
        registry.thing_groups.create(a, "a1", parent="a")
        registry.things.create(a, "robot")

    def test_moves_in_one_call(self, registry: Registry, a: Partition) -> None:
        registry.thing_groups.add_thing(a, "a", "robot")

        # into the hierarchy that it leaves in the same call
        registry.thing_groups.change_things_groups(a, "robot", add=("a1", "b"), remove=("a", "c"))

        assert list(a.groups_of_thing["robot"]) == ["a1", "b"]
        assert a.things_of_group == {"a1": {"robot": None}, "b": {"robot": None}}

    @pytest.mark.parametrize(
        ("add", "remove", "code"),
        [
            (("b", "missing"), (), "ResourceNotFoundException"),
            (("b",), ("missing",), "ResourceNotFoundException"),
            (("b",), ("b",), "InvalidRequestException"),
            (("b", "a1"), (), "InvalidRequestException"),  # a1 is below a
        ],
    )
    def test_all_or_nothing(
        self, registry: Registry, a: Partition, add: tuple[str, ...], remove: tuple[str, ...], code: str
    ) -> None:
        registry.thing_groups.add_thing(a, "a", "robot")

        refused = code_of(lambda: registry.thing_groups.change_things_groups(a, "robot", add=add, remove=remove))

        assert refused == code
        assert list(a.groups_of_thing["robot"]) == ["a"]

    def test_two_groups_of_one_hierarchy_in_one_call(self, registry: Registry, a: Partition) -> None:
        refused = code_of(lambda: registry.thing_groups.change_things_groups(a, "robot", add=("a", "a1")))

        assert refused == "InvalidRequestException"
        assert not a.groups_of_thing


class TestPropagatingAttributes:
    def test_each_has_one_source(self, registry: Registry, a: Partition) -> None:
        def create(**fields: str) -> object:
            attribute = PropagatingAttribute(user_property_key="k", **fields)
            return registry.thing_types.create(a, "t", propagating_attributes=[attribute])

        assert code_of(create) == "InvalidRequestException"
        both = code_of(lambda: create(thing_attribute="x", connection_attribute="iot:ClientId"))
        unknown = code_of(lambda: create(connection_attribute="iot:Nothing"))
        assert (both, unknown) == ("InvalidRequestException", "InvalidRequestException")
        create(connection_attribute="iot:Thing.ThingName")
