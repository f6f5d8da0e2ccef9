"""Provisioning templates (aws-iot-behaviour.md §1.5)."""

import pytest

from devicesim.emulator.registry import APIError, Partition, Registry
from devicesim.emulator.state.records import CertificateMode, ProvisioningTemplate, RegistrationConfig, TemplateType
from tests.control_support import BAD_TEMPLATE, REGION, A, Clock, TestCA, code_of

ROLE = "arn:aws:iam::111111111111:role/JITP"
HOOK = {"targetArn": "arn:aws:lambda:us-east-1:111111111111:function:hook"}


def create(registry: Registry, partition: Partition, kind: TemplateType = TemplateType.JITP) -> ProvisioningTemplate:
    return registry.templates.create(partition, "fleet", body="one", role_arn=ROLE, type=kind)


def test_is_stored_with_its_first_version(registry: Registry, a: Partition, clock: Clock) -> None:
    template = create(registry, a)

    assert template.arn == f"arn:aws:iot:{REGION}:{A}:provisioningtemplate/fleet"
    assert (template.body, template.default_version_id, template.enabled) == ("one", 1, False)
    assert (template.creation_date, template.last_modified_date) == (clock.now, clock.now)


def test_second_of_the_same_name_already_exists(registry: Registry, a: Partition) -> None:
    create(registry, a)

    with pytest.raises(APIError) as caught:
        create(registry, a)

    assert caught.value.code == "ResourceAlreadyExistsException"
    assert caught.value.fields["resourceId"] == "fleet"


def test_body_is_validated_when_it_is_given(registry: Registry, a: Partition) -> None:
    bad = code_of(lambda: registry.templates.create(a, "bad", body=BAD_TEMPLATE, role_arn=ROLE))
    create(registry, a)
    worse = code_of(lambda: registry.templates.create_version(a, "fleet", BAD_TEMPLATE))

    assert (bad, worse) == ("InvalidRequestException",) * 2
    assert list(a.templates) == ["fleet"]
    assert len(a.templates["fleet"].versions) == 1


def test_hook_is_for_fleet_provisioning_only(registry: Registry, a: Partition) -> None:
    refused_at_creation = code_of(
        lambda: registry.templates.create(
            a, "jitp", body="one", role_arn=ROLE, type=TemplateType.JITP, pre_provisioning_hook=HOOK
        )
    )
    create(registry, a)
    refused_later = code_of(lambda: registry.templates.update(a, "fleet", pre_provisioning_hook=HOOK))
    claimed = registry.templates.create(a, "claim", body="one", role_arn=ROLE, pre_provisioning_hook=HOOK)

    assert (refused_at_creation, refused_later) == ("InvalidRequestException",) * 2
    assert claimed.pre_provisioning_hook == HOOK
    assert registry.templates.update(a, "claim", remove_pre_provisioning_hook=True).pre_provisioning_hook is None


def test_hook_can_not_be_set_and_removed_at_once(registry: Registry, a: Partition) -> None:
    create(registry, a, TemplateType.FLEET_PROVISIONING)

    code = code_of(
        lambda: registry.templates.update(a, "fleet", pre_provisioning_hook=HOOK, remove_pre_provisioning_hook=True)
    )

    assert code == "InvalidRequestException"


def test_update_changes_what_is_given_only(registry: Registry, a: Partition, clock: Clock) -> None:
    template = create(registry, a)
    clock.advance(4)

    changed = registry.templates.update(a, "fleet", enabled=True, description="robots")

    assert (changed.enabled, changed.description, changed.role_arn) == (True, "robots", ROLE)
    assert changed.last_modified_date == template.creation_date + 4
    assert changed.type is TemplateType.JITP


def test_default_version_must_exist(registry: Registry, a: Partition) -> None:
    create(registry, a)

    assert code_of(lambda: registry.templates.update(a, "fleet", default_version_id=2)) == "ResourceNotFoundException"


def test_versions_are_numbered_limited_and_never_reused(registry: Registry, a: Partition) -> None:
    create(registry, a)
    for number in range(2, 6):
        assert registry.templates.create_version(a, "fleet", f"body {number}").version_id == number

    full = code_of(lambda: registry.templates.create_version(a, "fleet", "one too many"))
    registry.templates.delete_version(a, "fleet", 5)
    version = registry.templates.create_version(a, "fleet", "again", set_as_default=True)

    assert full == "VersionsLimitExceededException"
    assert version.version_id == 6
    assert registry.templates.get(a, "fleet").body == "again"


def test_default_version_can_not_be_deleted(registry: Registry, a: Partition) -> None:
    create(registry, a)

    assert code_of(lambda: registry.templates.delete_version(a, "fleet", 1)) == "DeleteConflictException"


def test_template_with_other_versions_can_not_be_deleted(registry: Registry, a: Partition) -> None:
    create(registry, a)
    registry.templates.create_version(a, "fleet", "two")

    assert code_of(lambda: registry.templates.delete(a, "fleet")) == "ConflictingResourceUpdateException"


def test_template_that_a_ca_names_can_not_be_deleted(registry: Registry, a: Partition) -> None:
    create(registry, a)
    ca = registry.cas.register(
        a,
        TestCA().pem,
        mode=CertificateMode.SNI_ONLY,
        registration_config=RegistrationConfig(template_name="fleet"),
    )

    in_use = code_of(lambda: registry.templates.delete(a, "fleet"))
    registry.cas.update(a, ca.certificate_id, remove_auto_registration=True)
    registry.templates.delete(a, "fleet")

    assert in_use == "DeleteConflictException"
    assert a.templates == {}


@pytest.mark.parametrize("verb", ["get", "delete", "update"])
def test_unknown_is_not_found(registry: Registry, a: Partition, verb: str) -> None:
    assert code_of(lambda: getattr(registry.templates, verb)(a, "none")) == "ResourceNotFoundException"


def test_templates_of_regions_are_independent(registry: Registry, a: Partition) -> None:
    create(registry, a)

    assert registry.partition(A, "eu-west-1").templates == {}
    assert create(registry, registry.partition(A, "eu-west-1")).name == "fleet"
