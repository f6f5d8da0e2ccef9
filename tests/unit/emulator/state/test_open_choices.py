"""Settings of the control plane where AWS leaves a choice: each value does what its documentation says."""

from collections.abc import Callable
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from devicesim.cli.emulated import emulator_settings
from devicesim.emulator.registry import APIError, Partition, Registry
from devicesim.emulator.state.environment import ControlSettings
from devicesim.emulator.state.records import (
    AutoRegistrationStatus,
    CACertificateStatus,
    CertificateMode,
    RegistrationConfig,
    TemplateType,
)
from devicesim.fleet.sections import Emulator
from tests.control_support import NOW, REGION, A, Clock, TestCA, make_key, make_registry, pem

ROLE = "arn:aws:iam::111111111111:role/JITP"
LEAF = TestCA().leaf()


def world(**settings: Any) -> tuple[Registry, Partition]:
    registry = make_registry(settings=ControlSettings(**settings))
    return registry, registry.partition(A, REGION)


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(APIError) as caught:
        call()
    return caught.value.code


def sni_only_ca(registry: Registry, partition: Partition, *, active: bool = True, serial: int = 1) -> str:
    return registry.cas.register(
        partition,
        TestCA(serial=serial).pem,
        mode=CertificateMode.SNI_ONLY,
        active=active,
        auto_registration=active,
    ).certificate_id


@pytest.mark.parametrize("code", ["InvalidRequestException", "CertificateValidationException"])
def test_error_of_a_verification_certificate_that_contradicts_the_mode(code: str) -> None:
    registry, a = world(verification_contradiction_error=code)

    assert refused(lambda: registry.cas.register(a, TestCA().pem)) == code
    with_one = TestCA().verification("x")
    assert (
        refused(
            lambda: registry.cas.register(a, TestCA().pem, verification_pem=with_one, mode=CertificateMode.SNI_ONLY)
        )
        == code
    )


def test_auto_registration_that_is_removed_and_set_at_once() -> None:
    def update(registry: Registry, a: Partition) -> AutoRegistrationStatus:
        ca_id = sni_only_ca(registry, a)
        return registry.cas.update(
            a, ca_id, auto_registration=AutoRegistrationStatus.ENABLE, remove_auto_registration=True
        ).auto_registration

    assert refused(lambda: update(*world())) == "InvalidRequestException"
    assert update(*world(remove_and_set_auto_registration="remove")) is AutoRegistrationStatus.DISABLE


@pytest.mark.parametrize("code", ["ResourceNotFoundException", "InvalidRequestException"])
def test_error_of_a_template_that_does_not_exist(code: str) -> None:
    registry, a = world(unknown_template_error=code)
    config = RegistrationConfig(template_name="none")

    assert refused(lambda: registry.cas.check_registration_config(a, config)) == code


def test_template_that_a_ca_names() -> None:
    def delete(registry: Registry, a: Partition) -> None:
        registry.templates.create(a, "t", body="{}", role_arn=ROLE, type=TemplateType.JITP, enabled=True)
        ca_id = sni_only_ca(registry, a)
        registry.cas.update(a, ca_id, registration_config=RegistrationConfig(template_name="t"))
        registry.templates.delete(a, "t")
        template = registry.cas.template_of(a, a.cas[ca_id])
        assert template is not None
        assert (template.name, template.enabled) == ("t", False)

    assert refused(lambda: delete(*world())) == "DeleteConflictException"
    delete(*world(template_named_by_ca_stays=False))


def test_which_of_two_cas_with_one_key_signed() -> None:
    def issuer(ambiguous_issuer: str) -> int:
        registry, a = world(ambiguous_issuer=ambiguous_issuer)
        sni_only_ca(registry, a, active=False, serial=1)
        sni_only_ca(registry, a, serial=2)
        found = registry.issuer_of(a, LEAF)
        assert found is not None
        sent = registry.issuer_of(a, LEAF, (TestCA(serial=2).certificate,))
        assert sent is not None
        assert sent.certificate.serial_number == 2
        return found.certificate.serial_number

    assert (issuer("registering"), issuer("oldest")) == (2, 1)


@pytest.mark.parametrize("code", ["CertificateValidationException", "InvalidRequestException"])
def test_error_of_a_leaf_whose_ca_is_not_there(code: str) -> None:
    registry, a = world(unregistered_ca_error=code)
    other = TestCA(key=make_key("other"))

    assert refused(lambda: registry.certificates.register(a, pem(LEAF))) == code
    assert refused(lambda: registry.certificates.register(a, pem(LEAF), ca_pem=TestCA().pem)) == code
    registry.cas.register(a, other.pem, mode=CertificateMode.SNI_ONLY, active=True)
    assert refused(lambda: registry.certificates.register(a, pem(LEAF), ca_pem=other.pem)) == code


@pytest.mark.parametrize(
    "code", ["CertificateStateException", "InvalidRequestException", "CertificateValidationException"]
)
def test_error_of_a_leaf_under_an_inactive_ca(code: str) -> None:
    registry, a = world(inactive_ca_error=code)
    ca_id = sni_only_ca(registry, a)
    registry.cas.update(a, ca_id, status=CACertificateStatus.INACTIVE)

    assert refused(lambda: registry.certificates.register(a, pem(LEAF))) == code


def test_curves_of_cas_and_leaves() -> None:
    registry, a = world(accepted_curves=("secp384r1",))

    assert refused(lambda: sni_only_ca(registry, a)) == "CertificateValidationException"
    assert refused(lambda: registry.certificates.register_without_ca(a, pem(LEAF))) == "CertificateValidationException"
    wide = TestCA().leaf(key=make_key("wide", "P-384"))
    registry.certificates.register_without_ca(a, pem(wide))


def test_claim_of_a_template_that_is_not_enabled_and_how_long_it_lives() -> None:
    registry, a = world(claim_needs_enabled_template=False, claim_seconds=60.0)
    registry.templates.create(a, "off", body="{}", role_arn=ROLE)

    claim = registry.claims.create(a, "off")

    assert claim.expiration == (NOW + timedelta(seconds=60)).timestamp()


def test_length_of_a_session_that_nobody_asked_for() -> None:
    registry = make_registry(Clock(), ControlSettings(session_seconds=900))

    assert registry.sessions.assume_role(ROLE, "me").expiration == NOW.timestamp() + 900


def test_every_new_choice_can_be_made_in_a_fleet_file() -> None:
    given: dict[str, Any] = {
        "accepted_curves": ["secp256r1"],
        "secret_access_keys": {A: "secret"},
        "taken_domain_error": "ResourceAlreadyExistsException",
        "transfer_with_things": True,
    }

    control = emulator_settings(Emulator(settings=given), Path("fleet.toml")).control

    assert control == replace(
        ControlSettings(),
        accepted_curves=("secp256r1",),
        secret_access_keys={A: "secret"},
        taken_domain_error="ResourceAlreadyExistsException",
        transfer_with_things=True,
    )
    assert {each.name for each in fields(ControlSettings)} >= set(given)
