"""Things and their principals (aws-iot-behaviour.md §1.5)."""

import pytest

from devicesim.emulator.registry import APIError, Partition, Registry
from devicesim.emulator.state.records import DeviceCertificate, ThingPrincipalType
from tests.control_support import REGION, A, B, TestCA, code_of, pem

EXCLUSIVE = ThingPrincipalType.EXCLUSIVE_THING
SHARED = ThingPrincipalType.NON_EXCLUSIVE_THING


@pytest.fixture
def leaf(registry: Registry, a: Partition) -> DeviceCertificate:
    return registry.certificates.register_without_ca(a, pem(TestCA().leaf()))


class TestCreate:
    def test_same_configuration_answers_the_same_thing(self, registry: Registry, a: Partition) -> None:
        first = registry.things.create(a, "robot", attributes={"size": "xl"})

        assert registry.things.create(a, "robot", attributes={"size": "xl"}) is first
        assert first.arn == f"arn:aws:iot:{REGION}:{A}:thing/robot"
        assert first.version == 1

    @pytest.mark.parametrize("attributes", [{}, {"size": "s"}, {"size": "xl", "more": "x"}])
    def test_other_configuration_already_exists(
        self, registry: Registry, a: Partition, attributes: dict[str, str]
    ) -> None:
        first = registry.things.create(a, "robot", attributes={"size": "xl"})

        with pytest.raises(APIError) as caught:
            registry.things.create(a, "robot", attributes=attributes)

        assert caught.value.code == "ResourceAlreadyExistsException"
        assert caught.value.fields == {"resourceId": first.thing_id, "resourceArn": first.arn}

    def test_type_must_exist_and_be_in_use(self, registry: Registry, a: Partition) -> None:
        unknown = code_of(lambda: registry.things.create(a, "robot", thing_type_name="arm"))
        registry.thing_types.create(a, "arm")
        registry.thing_types.deprecate(a, "arm")
        deprecated = code_of(lambda: registry.things.create(a, "robot", thing_type_name="arm"))
        registry.thing_types.deprecate(a, "arm", undo=True)

        assert (unknown, deprecated) == ("ResourceNotFoundException", "InvalidRequestException")
        assert registry.things.create(a, "robot", thing_type_name="arm").thing_type_name == "arm"

    def test_billing_group_does_not_exist(self, registry: Registry, a: Partition) -> None:
        code = code_of(lambda: registry.things.create(a, "robot", billing_group_name="lab"))

        assert code == "ResourceNotFoundException"
        assert a.things == {}

    def test_three_attributes_without_a_type_and_fifty_with_one(self, registry: Registry, a: Partition) -> None:
        registry.thing_types.create(a, "arm")

        def attributes(count: int) -> dict[str, str]:
            return {f"a{number}": "x" for number in range(count)}

        registry.things.create(a, "plain", attributes=attributes(3))
        registry.things.create(a, "typed", attributes=attributes(50), thing_type_name="arm")
        four = code_of(lambda: registry.things.create(a, "x", attributes=attributes(4)))
        more = code_of(lambda: registry.things.create(a, "x", attributes=attributes(51), thing_type_name="arm"))

        assert (four, more) == ("InvalidRequestException",) * 2

    def test_accounts_and_regions_are_independent(self, registry: Registry, a: Partition) -> None:
        registry.things.create(a, "robot", attributes={"in": "a"})
        elsewhere = [registry.partition(B, REGION), registry.partition(A, "eu-west-1")]

        things = [registry.things.create(each, "robot", attributes={"in": "b"}) for each in elsewhere]

        assert len({a.things["robot"].arn, *(thing.arn for thing in things)}) == 3


class TestUpdate:
    def test_attributes_are_replaced_merged_and_removed(self, registry: Registry, a: Partition) -> None:
        registry.things.create(a, "robot", attributes={"one": "1", "two": "2"})

        merged = registry.things.update(a, "robot", attributes={"two": "", "three": "3"}, merge=True)
        replaced = registry.things.update(a, "robot", attributes={"four": "4", "five": ""})

        assert merged.attributes == {"one": "1", "three": "3"}
        assert replaced.attributes == {"four": "4"}
        assert replaced.version == 3

    def test_expected_version_must_be_the_version(self, registry: Registry, a: Partition) -> None:
        registry.things.create(a, "robot")

        registry.things.update(a, "robot", attributes={"x": "1"}, expected_version=1)
        late = code_of(lambda: registry.things.update(a, "robot", attributes={"x": "2"}, expected_version=1))

        assert late == "VersionConflictException"

    def test_type_is_changed_and_removed_and_indexed(self, registry: Registry, a: Partition) -> None:
        for name in ("arm", "leg"):
            registry.thing_types.create(a, name)
        registry.things.create(a, "robot", thing_type_name="arm")
        registry.things.update(a, "robot", thing_type_name="leg")
        indexed = {name: dict(things) for name, things in a.things_of_type.items()}
        registry.things.update(a, "robot", remove_thing_type=True)

        assert indexed == {"leg": {"robot": None}}
        assert a.things["robot"].thing_type_name is None
        assert a.things_of_type == {}

    def test_type_set_and_removed_at_once_is_refused(self, registry: Registry, a: Partition) -> None:
        registry.thing_types.create(a, "arm")
        registry.things.create(a, "robot")

        code = code_of(lambda: registry.things.update(a, "robot", thing_type_name="arm", remove_thing_type=True))

        assert code == "InvalidRequestException"

    def test_removing_the_type_with_too_many_attributes_is_refused(self, registry: Registry, a: Partition) -> None:
        registry.thing_types.create(a, "arm")
        registry.things.create(a, "robot", thing_type_name="arm", attributes=dict.fromkeys("abcd", "x"))

        code = code_of(lambda: registry.things.update(a, "robot", remove_thing_type=True))

        assert code == "InvalidRequestException"
        assert a.things["robot"].thing_type_name == "arm"

    def test_unknown_is_not_found(self, registry: Registry, a: Partition) -> None:
        assert code_of(lambda: registry.things.update(a, "none")) == "ResourceNotFoundException"


class TestDelete:
    def test_unknown_is_no_error(self, registry: Registry, a: Partition) -> None:
        registry.things.delete(a, "none")

        assert a.things == {}

    def test_attached_thing_is_refused(self, registry: Registry, a: Partition, leaf: DeviceCertificate) -> None:
        registry.things.create(a, "robot")
        registry.things.attach_principal(a, "robot", leaf.arn)

        assert code_of(lambda: registry.things.delete(a, "robot")) == "InvalidRequestException"

    def test_expected_version_must_be_the_version(self, registry: Registry, a: Partition) -> None:
        registry.things.create(a, "robot")

        assert code_of(lambda: registry.things.delete(a, "robot", expected_version=2)) == "VersionConflictException"

    def test_leaves_no_trace(self, registry: Registry, a: Partition) -> None:
        registry.thing_types.create(a, "arm")
        registry.thing_groups.create(a, "robots")
        registry.things.create(a, "robot", thing_type_name="arm")
        registry.thing_groups.add_thing(a, "robots", "robot")

        registry.things.delete(a, "robot")

        assert (a.things, a.things_of_type, a.groups_of_thing, a.things_of_group) == ({}, {}, {}, {})


class TestPrincipals:
    def test_attach_twice_and_detach_once(self, registry: Registry, a: Partition, leaf: DeviceCertificate) -> None:
        registry.things.create(a, "robot")
        for _ in range(2):
            registry.things.attach_principal(a, "robot", leaf.arn)
        held = dict(a.things_of_certificate(leaf.certificate_id))
        registry.things.detach_principal(a, "robot", leaf.arn)

        assert held == {"robot": SHARED}
        assert code_of(lambda: registry.things.detach_principal(a, "robot", leaf.arn)) == "ResourceNotFoundException"
        assert (a.things_of_principal, a.principals_of_thing) == ({}, {})

    @pytest.mark.parametrize(
        ("first", "second", "allowed"),
        [(SHARED, SHARED, True), (SHARED, EXCLUSIVE, False), (EXCLUSIVE, SHARED, False), (EXCLUSIVE, EXCLUSIVE, False)],
    )
    def test_exclusive_means_one_thing_for_the_principal(
        self,
        registry: Registry,
        a: Partition,
        leaf: DeviceCertificate,
        first: ThingPrincipalType,
        second: ThingPrincipalType,
        allowed: bool,
    ) -> None:
        for name in ("one", "two"):
            registry.things.create(a, name)
        registry.things.attach_principal(a, "one", leaf.arn, first)

        if allowed:
            registry.things.attach_principal(a, "two", leaf.arn, second)
        else:
            code = code_of(lambda: registry.things.attach_principal(a, "two", leaf.arn, second))
            assert code == "InvalidRequestException"

        expected = {"one": first, "two": second} if allowed else {"one": first}
        assert a.things_of_certificate(leaf.certificate_id) == expected

    def test_only_attachment_can_become_exclusive(
        self, registry: Registry, a: Partition, leaf: DeviceCertificate
    ) -> None:
        registry.things.create(a, "robot")
        registry.things.attach_principal(a, "robot", leaf.arn, SHARED)

        registry.things.attach_principal(a, "robot", leaf.arn, EXCLUSIVE)

        assert a.principals_of_thing["robot"] == {leaf.arn: EXCLUSIVE}

    @pytest.mark.parametrize(
        ("principal", "code"),
        [
            (f"arn:aws:iot:{REGION}:{A}:cert/{'0' * 64}", "ResourceNotFoundException"),
            (f"arn:aws:iot:{REGION}:{A}:thinggroup/robots", "InvalidRequestException"),
            ("robot", "InvalidRequestException"),
        ],
    )
    def test_other_principals_are_refused(self, registry: Registry, a: Partition, principal: str, code: str) -> None:
        registry.things.create(a, "robot")

        assert code_of(lambda: registry.things.attach_principal(a, "robot", principal)) == code

    def test_cognito_identity_is_a_principal(self, registry: Registry, a: Partition) -> None:
        registry.things.create(a, "robot")
        identity = "us-east-1:01234567-89ab-cdef-0123-456789abcdef"

        registry.things.attach_principal(a, "robot", identity)

        assert a.principals_of_thing["robot"] == {identity: SHARED}

    def test_unknown_thing_is_not_found(self, registry: Registry, a: Partition, leaf: DeviceCertificate) -> None:
        code = code_of(lambda: registry.things.attach_principal(a, "none", leaf.arn))

        assert code == "ResourceNotFoundException"
