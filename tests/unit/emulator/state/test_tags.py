"""Tags: which resources take them, and how many."""

import pytest

from devicesim.emulator.registry import Partition, Registry
from devicesim.emulator.state.records import CertificateMode
from tests.control_support import REGION, B, TestCA, code_of, pem

ALLOW = '{"Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}'


def test_are_given_at_creation_changed_and_removed(registry: Registry, a: Partition) -> None:
    tags = [("team", "lab")]
    resources = [
        registry.cas.register(a, TestCA().pem, mode=CertificateMode.SNI_ONLY, tags=tags).arn,
        registry.policies.create(a, "allow", ALLOW, tags=tags).arn,
        registry.templates.create(a, "fleet", body="", role_arn="", tags=tags).arn,
        registry.thing_types.create(a, "arm", tags=tags).arn,
        registry.thing_groups.create(a, "robots", tags=tags).arn,
    ]
    for arn in resources:
        assert registry.tags.of(a, arn) == {"team": "lab"}
        registry.tags.tag(a, arn, [("team", "field"), ("stage", "dev")])
        assert registry.tags.of(a, arn) == {"team": "field", "stage": "dev"}
        registry.tags.untag(a, arn, ["team", "none"])
        assert registry.tags.of(a, arn) == {"stage": "dev"}


def test_end_with_their_resource(registry: Registry, a: Partition) -> None:
    for _ in range(2):
        ca = registry.cas.register(a, TestCA().pem, mode=CertificateMode.SNI_ONLY)
        assert registry.tags.of(a, ca.arn) == {}
        registry.tags.tag(a, ca.arn, [("team", "lab")])
        registry.cas.delete(a, ca.certificate_id)

    assert a.tags == {}


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ([("a", "1"), ("a", "2")], "InvalidRequestException"),
        ([("AWS:x", "1")], "InvalidRequestException"),
        ([(str(number), "") for number in range(51)], "LimitExceededException"),
    ],
)
def test_bad_tags_refuse_the_resource(registry: Registry, a: Partition, tags: list[tuple[str, str]], code: str) -> None:
    assert code_of(lambda: registry.thing_groups.create(a, "robots", tags=tags)) == code
    assert a.thing_groups == {}


def test_fifty_in_all(registry: Registry, a: Partition) -> None:
    arn = registry.thing_groups.create(a, "robots", tags=[(str(number), "") for number in range(50)]).arn

    registry.tags.tag(a, arn, [("0", "changed")])

    assert code_of(lambda: registry.tags.tag(a, arn, [("one", "too many")])) == "LimitExceededException"
    assert len(registry.tags.of(a, arn)) == 50


def test_things_and_device_certificates_take_none(registry: Registry, a: Partition) -> None:
    thing = registry.things.create(a, "robot")
    leaf = registry.certificates.register_without_ca(a, pem(TestCA().leaf()))

    assert code_of(lambda: registry.tags.tag(a, thing.arn, [])) == "InvalidRequestException"
    assert code_of(lambda: registry.tags.tag(a, leaf.arn, [])) == "InvalidRequestException"


def test_resource_of_another_account_is_not_found(registry: Registry, a: Partition) -> None:
    registry.thing_groups.create(a, "robots")
    other = registry.thing_groups.create(registry.partition(B, REGION), "robots")

    assert code_of(lambda: registry.tags.of(a, other.arn)) == "ResourceNotFoundException"
    assert code_of(lambda: registry.tags.of(a, a.arn("thinggroup", "none"))) == "ResourceNotFoundException"
