"""Policies, their versions and attachments (aws-iot-behaviour.md §1.5, §6)."""

from collections.abc import Callable

import pytest

from devicesim.emulator import policy
from devicesim.emulator.registry import APIError, Partition, Registry
from devicesim.emulator.state.environment import ControlSettings
from devicesim.emulator.state.records import DeviceCertificate
from tests.control_support import REGION, A, B, Clock, TestCA, code_of, make_registry, pem

IDENTITY = "us-east-1:01234567-89ab-cdef-0123-456789abcdef"


def document(action: str = "iot:Connect") -> str:
    return f'{{"Version": "2012-10-17", "Statement": [{{"Effect": "Allow", "Action": "{action}", "Resource": "*"}}]}}'


@pytest.fixture
def leaf(registry: Registry, a: Partition) -> DeviceCertificate:
    return registry.certificates.register_without_ca(a, pem(TestCA().leaf()))


def test_document_is_kept_as_given(registry: Registry, a: Partition, clock: Clock) -> None:
    held = registry.policies.create(a, "allow", document())

    assert held.arn == f"arn:aws:iot:{REGION}:{A}:policy/allow"
    assert held.default.document == document()
    assert (held.default_version_id, held.creation_date) == (1, clock.now)


def test_second_of_the_same_name_already_exists(registry: Registry, a: Partition) -> None:
    registry.policies.create(a, "allow", document())

    assert code_of(lambda: registry.policies.create(a, "allow", document())) == "ResourceAlreadyExistsException"


def test_bad_document_is_malformed(registry: Registry, a: Partition) -> None:
    assert code_of(lambda: registry.policies.create(a, "allow", "{}")) == "MalformedPolicyException"
    assert a.policies == {}


def test_length_counts_without_white_space(registry: Registry, a: Partition) -> None:
    filler = 2048 - len("".join(document("iot:").split()))

    registry.policies.create(a, "longest", document("iot:" + "x" * filler).replace(" ", "  \n"))
    too_long = code_of(lambda: registry.policies.create(a, "longer", document("iot:" + "x" * (filler + 1))))

    assert too_long == "MalformedPolicyException"


def test_versions_are_numbered_limited_and_never_reused(registry: Registry, a: Partition) -> None:
    registry.policies.create(a, "allow", document())
    for number in range(2, 6):
        assert registry.policies.create_version(a, "allow", document()).version_id == number

    full = code_of(lambda: registry.policies.create_version(a, "allow", document()))
    registry.policies.delete_version(a, "allow", 5)
    version = registry.policies.create_version(a, "allow", document("iot:Publish"), set_as_default=True)

    assert full == "VersionsLimitExceededException"
    assert version.version_id == 6
    assert registry.policies.get(a, "allow").default.document == document("iot:Publish")


def test_default_version_can_be_set_and_not_deleted(registry: Registry, a: Partition) -> None:
    registry.policies.create(a, "allow", document())
    registry.policies.create_version(a, "allow", document("iot:Publish"))
    registry.policies.set_default_version(a, "allow", 2)

    assert registry.policies.get(a, "allow").default.document == document("iot:Publish")
    assert code_of(lambda: registry.policies.delete_version(a, "allow", 2)) == "DeleteConflictException"
    assert code_of(lambda: registry.policies.set_default_version(a, "allow", 9)) == "ResourceNotFoundException"


def test_policy_with_other_versions_or_attached_can_not_be_deleted(
    registry: Registry, a: Partition, leaf: DeviceCertificate
) -> None:
    registry.policies.create(a, "allow", document())
    registry.policies.create_version(a, "allow", document())
    with_versions = code_of(lambda: registry.policies.delete(a, "allow"))
    registry.policies.delete_version(a, "allow", 2)
    registry.policies.attach(a, "allow", leaf.arn)
    attached = code_of(lambda: registry.policies.delete(a, "allow"))
    registry.policies.detach(a, "allow", leaf.arn)
    registry.policies.delete(a, "allow")

    assert (with_versions, attached) == ("DeleteConflictException",) * 2
    assert a.policies == {}


def test_ten_policies_to_a_principal_and_no_eleventh(registry: Registry, a: Partition, leaf: DeviceCertificate) -> None:
    for number in range(11):
        registry.policies.create(a, f"policy-{number}", document())
    for number in range(10):
        registry.policies.attach(a, f"policy-{number}", leaf.arn)

    registry.policies.attach(a, "policy-0", leaf.arn)  # again, which changes nothing
    eleventh = code_of(lambda: registry.policies.attach(a, "policy-10", leaf.arn))

    assert eleventh == "LimitExceededException"
    assert len(a.policies_of_target[leaf.arn]) == 10


def test_targets_are_certificates_groups_and_identities_of_this_account(
    registry: Registry, a: Partition, leaf: DeviceCertificate
) -> None:
    registry.policies.create(a, "allow", document())
    group = registry.thing_groups.create(a, "robots")
    for target in (leaf.arn, group.arn, IDENTITY):
        registry.policies.attach(a, "allow", target)

    assert sorted(a.targets_of_policy["allow"]) == sorted([leaf.arn, group.arn, IDENTITY])


@pytest.mark.parametrize(
    ("target", "code"),
    [
        (f"arn:aws:iot:{REGION}:{A}:cert/{'0' * 64}", "ResourceNotFoundException"),
        (f"arn:aws:iot:{REGION}:{A}:thinggroup/none", "ResourceNotFoundException"),
        (f"arn:aws:iot:{REGION}:{A}:thing/robot", "InvalidRequestException"),
        ("robot", "InvalidRequestException"),
        ("", "InvalidRequestException"),
    ],
)
def test_other_targets_are_refused(registry: Registry, a: Partition, target: str, code: str) -> None:
    registry.policies.create(a, "allow", document())
    registry.things.create(a, "robot")

    assert code_of(lambda: registry.policies.attach(a, "allow", target)) == code
    assert code_of(lambda: registry.policies.detach(a, "allow", target)) == code


@pytest.mark.parametrize(("account", "region"), [(B, REGION), (A, "eu-west-1")])
def test_certificate_of_another_account_or_region_is_no_target(
    registry: Registry, a: Partition, account: str, region: str
) -> None:
    registry.policies.create(a, "allow", document())
    other = registry.certificates.register_without_ca(registry.partition(account, region), pem(TestCA().leaf()))

    assert code_of(lambda: registry.policies.attach(a, "allow", other.arn)) == "ResourceNotFoundException"


def test_unknown_policy_is_not_found(registry: Registry, a: Partition, leaf: DeviceCertificate) -> None:
    calls: list[Callable[[], object]] = [
        lambda: registry.policies.get(a, "none"),
        lambda: registry.policies.delete(a, "none"),
        lambda: registry.policies.attach(a, "none", leaf.arn),
        lambda: registry.policies.detach(a, "none", leaf.arn),
        lambda: registry.policies.create_version(a, "none", document()),
        lambda: registry.policies.version(a, "none", 1),
    ]

    assert {code_of(call) for call in calls} == {"ResourceNotFoundException"}


class TestDocuments:
    """Which documents decide for a device."""

    def allowed(self, registry: Registry, a: Partition, leaf: DeviceCertificate, client_id: str | None) -> set[str]:
        documents = list(registry.policies.documents(a, leaf.certificate_id, client_id=client_id))
        actions = ("iot:Connect", "iot:Publish", "iot:Receive")
        return {each for each in actions if policy.evaluate(documents, action=each, resource="*", variables={})}

    def test_none_without_attachment(self, registry: Registry, a: Partition, leaf: DeviceCertificate) -> None:
        assert self.allowed(registry, a, leaf, None) == set()

    def test_of_groups_hold_for_things_whose_name_is_the_client_id(
        self, registry: Registry, a: Partition, leaf: DeviceCertificate
    ) -> None:
        for name, action in (("own", "iot:Connect"), ("group", "iot:Publish"), ("parent", "iot:Receive")):
            registry.policies.create(a, name, document(action))
        parent = registry.thing_groups.create(a, "all")
        group = registry.thing_groups.create(a, "robots", parent="all")
        registry.policies.attach(a, "own", leaf.arn)
        registry.policies.attach(a, "group", group.arn)
        registry.policies.attach(a, "parent", parent.arn)
        registry.things.create(a, "robot")
        registry.thing_groups.add_thing(a, "robots", "robot")
        before = self.allowed(registry, a, leaf, "robot")
        registry.things.attach_principal(a, "robot", leaf.arn)

        assert before == {"iot:Connect"}
        assert self.allowed(registry, a, leaf, "robot") == {"iot:Connect", "iot:Publish", "iot:Receive"}
        assert self.allowed(registry, a, leaf, "other") == {"iot:Connect"}

    def test_default_version_counts(self, registry: Registry, a: Partition, leaf: DeviceCertificate) -> None:
        registry.policies.create(a, "own", document("iot:Connect"))
        registry.policies.attach(a, "own", leaf.arn)
        registry.policies.create_version(a, "own", document("iot:Publish"))
        before = self.allowed(registry, a, leaf, None)

        registry.policies.set_default_version(a, "own", 2)

        assert before == {"iot:Connect"}
        assert self.allowed(registry, a, leaf, None) == {"iot:Publish"}


@pytest.mark.parametrize("refuses", [False, True])
def test_detaching_what_is_not_attached(refuses: bool) -> None:
    registry = make_registry(settings=ControlSettings(detach_policy_not_attached="refuse" if refuses else "ignore"))
    a = registry.partition(A, REGION)
    registry.policies.create(a, "p", '{"Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}')
    arn = registry.thing_groups.create(a, "g").arn

    if refuses:
        with pytest.raises(APIError, match="is not attached"):
            registry.policies.detach(a, "p", arn)
    else:
        registry.policies.detach(a, "p", arn)

    registry.policies.attach(a, "p", arn)
    registry.policies.detach(a, "p", arn)
    assert not a.policies_of_target
