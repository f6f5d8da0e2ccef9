"""Registration of CAs: every row of aws-iot-behaviour.md §10a, §1.1, §1.2 and §1.3 that the control plane decides."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from devicesim.emulator.registry import APIError, Partition, Registry
from devicesim.emulator.state.environment import ControlSettings
from devicesim.emulator.state.records import (
    AutoRegistrationStatus,
    CACertificate,
    CACertificateStatus,
    CertificateMode,
    EffectiveTemplate,
    RegistrationConfig,
    TemplateType,
)
from tests.control_support import (
    BAD_TEMPLATE,
    NOW,
    REGION,
    A,
    B,
    C,
    Clock,
    TestCA,
    make_certificate,
    make_key,
    make_registry,
    name,
    pem,
)

ROLE = "arn:aws:iam::111111111111:role/JITP"
SHA1_CA = """-----BEGIN CERTIFICATE-----
MIIBdzCCAR6gAwIBAgIUKdvJJDTzpQVB9l9enFMzVwrNVOowCQYHKoZIzj0EATAR
MQ8wDQYDVQQDDAZPbGQgQ0EwIBcNMjYxMTIzMTUxNzE0WhgPMjEyNjEwMzAxNTE3
MTRaMBExDzANBgNVBAMMBk9sZCBDQTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IA
BCqjtaPhx+Q2P0n/IhjNwdYkydltr+YdTdCwPDsjuUtoV8I/LPPilofvF6O8VBSC
gYW1t1MAEjmcq7SI5LLyh3ujUzBRMB0GA1UdDgQWBBRvhNB1d6kj2ccPVsg71JA/
krFjXjAfBgNVHSMEGDAWgBRvhNB1d6kj2ccPVsg71JA/krFjXjAPBgNVHRMBAf8E
BTADAQH/MAkGByqGSM49BAEDSAAwRQIgPCi5P9fzTZ2NeMdRbCA2MjuReOyNDfKr
PMGdgJaZL/wCIQDx59tg5g7rW1FPB8vFfMZi8U6aSexYWx95Bj2Gz5D8gA==
-----END CERTIFICATE-----
"""
"""Made by ``openssl req -x509 -newkey ec -sha1``; cryptography signs no SHA-1."""
VALID_WHEN_SHA1_IS = datetime(2027, 6, 1, tzinfo=UTC).timestamp()


def register_default(registry: Registry, partition: Partition, ca: TestCA) -> CACertificate:
    code = registry.cas.registration_code(partition)
    return registry.cas.register(partition, ca.pem, verification_pem=ca.verification(code))


def register_sni_only(registry: Registry, partition: Partition, ca: TestCA) -> CACertificate:
    return registry.cas.register(partition, ca.pem, mode=CertificateMode.SNI_ONLY)


def refused(call: Callable[[], object]) -> APIError:
    with pytest.raises(APIError) as caught:
        call()
    return caught.value


class TestTruthTable:
    """§10a, in its order. C0: nobody has the CA; C1: A in DEFAULT; C2: A in SNI_ONLY; C3: A DEFAULT and B SNI_ONLY."""

    def test_c0_default_with_valid_verification_is_ok(self, registry: Registry) -> None:
        a = registry.partition(A, REGION)

        ca = register_default(registry, a, TestCA())

        assert ca.mode is CertificateMode.DEFAULT
        assert a.cas == {ca.certificate_id: ca}
        assert registry.default_ca_holders(REGION, ca.certificate_id) is a

    def test_c0_default_without_verification_is_an_invalid_request(self, registry: Registry) -> None:
        a = registry.partition(A, REGION)

        error = refused(lambda: registry.cas.register(a, TestCA().pem))

        assert error.code == "InvalidRequestException"
        assert a.cas == {}

    def test_c0_sni_only_with_verification_is_an_invalid_request(self, registry: Registry) -> None:
        a = registry.partition(A, REGION)
        verification = TestCA().verification(registry.cas.registration_code(a))

        error = refused(
            lambda: registry.cas.register(a, TestCA().pem, verification_pem=verification, mode=CertificateMode.SNI_ONLY)
        )

        assert error.code == "InvalidRequestException"

    def test_c0_default_with_the_code_of_another_account_is_refused(self, registry: Registry) -> None:
        a, b = registry.partition(A, REGION), registry.partition(B, REGION)
        registry.cas.registration_code(a)
        verification = TestCA().verification(registry.cas.registration_code(b))

        error = refused(lambda: registry.cas.register(a, TestCA().pem, verification_pem=verification))

        assert error.code == "RegistrationCodeValidationException"

    def test_c1_default_by_another_account_of_the_region_is_refused(self, registry: Registry) -> None:
        a, b = registry.partition(A, REGION), registry.partition(B, REGION)
        ca = register_default(registry, a, TestCA())

        error = refused(lambda: register_default(registry, b, TestCA()))

        assert error.code == "ResourceAlreadyExistsException"
        assert error.fields == {
            "resourceId": ca.certificate_id,
            "resourceArn": f"arn:aws:iot:{REGION}:{B}:cacert/{ca.certificate_id}",
        }
        assert A not in error.message
        assert b.cas == {}
        assert registry.default_ca_holders(REGION, ca.certificate_id) is a

    def test_c1_default_by_another_account_in_another_region_is_ok(self, registry: Registry) -> None:
        ca = register_default(registry, registry.partition(A, REGION), TestCA())
        elsewhere = registry.partition(B, "eu-west-1")

        register_default(registry, elsewhere, TestCA())

        assert registry.default_ca_holders("eu-west-1", ca.certificate_id) is elsewhere

    def test_c1_sni_only_by_another_account_is_ok(self, registry: Registry) -> None:
        a, b = registry.partition(A, REGION), registry.partition(B, REGION)
        register_default(registry, a, TestCA())

        ca = register_sni_only(registry, b, TestCA())

        assert ca.mode is CertificateMode.SNI_ONLY
        assert registry.default_ca_holders(REGION, ca.certificate_id) is a

    def test_c2_sni_only_by_any_number_of_accounts_is_ok(self, registry: Registry) -> None:
        ids = {
            register_sni_only(registry, registry.partition(account, REGION), TestCA()).certificate_id
            for account in (A, B, C)
        }

        assert len(ids) == 1
        assert registry.default_ca_holders(REGION, ids.pop()) is None

    def test_c2_default_by_another_account_is_ok(self, registry: Registry) -> None:
        a, b = registry.partition(A, REGION), registry.partition(B, REGION)
        register_sni_only(registry, a, TestCA())

        ca = register_default(registry, b, TestCA())

        assert registry.default_ca_holders(REGION, ca.certificate_id) is b

    @pytest.mark.parametrize("first", list(CertificateMode))
    @pytest.mark.parametrize("second", list(CertificateMode))
    def test_c1_the_same_ca_again_in_any_mode_already_exists(
        self, registry: Registry, first: CertificateMode, second: CertificateMode
    ) -> None:
        a = registry.partition(A, REGION)
        ways = {CertificateMode.DEFAULT: register_default, CertificateMode.SNI_ONLY: register_sni_only}
        ca = ways[first](registry, a, TestCA())

        error = refused(lambda: ways[second](registry, a, TestCA()))

        assert error.code == "ResourceAlreadyExistsException"
        assert error.fields == {"resourceId": ca.certificate_id, "resourceArn": ca.arn}
        assert a.cas == {ca.certificate_id: ca}

    def test_c3_after_a_deletes_it_b_can_register_it_anew_in_default(self, registry: Registry) -> None:
        a, b = registry.partition(A, REGION), registry.partition(B, REGION)
        ca = register_default(registry, a, TestCA())
        register_sni_only(registry, b, TestCA())
        registry.cas.delete(a, ca.certificate_id)
        registry.cas.delete(b, ca.certificate_id)

        register_default(registry, b, TestCA())

        assert registry.default_ca_holders(REGION, ca.certificate_id) is b


class TestRegistration:
    """§1.2."""

    def test_record_is_complete(self, registry: Registry, clock: Clock) -> None:
        clock.now = 1769860800.123456
        a = registry.partition(A, REGION)
        test_ca = TestCA()

        ca = register_default(registry, a, test_ca)

        assert ca.certificate_id == sha256(test_ca.certificate.public_bytes(Encoding.DER)).hexdigest()
        assert ca.arn == f"arn:aws:iot:{REGION}:{A}:cacert/{ca.certificate_id}"
        assert ca.pem == test_ca.pem
        assert (ca.status, ca.auto_registration) == (CACertificateStatus.INACTIVE, AutoRegistrationStatus.DISABLE)
        assert (ca.creation_date, ca.last_modified_date) == (1769860800.123, 1769860800.123)
        assert ca.customer_version == 1
        assert len(ca.generation_id) == 32
        assert ca.not_before == (NOW - timedelta(days=1)).timestamp()
        assert ca.not_after == (NOW + timedelta(days=365)).timestamp()
        assert not ca.registers_devices

    def test_active_with_auto_registration_registers_devices(self, registry: Registry) -> None:
        a = registry.partition(A, REGION)

        ca = registry.cas.register(a, TestCA().pem, mode=CertificateMode.SNI_ONLY, active=True, auto_registration=True)

        assert ca.registers_devices

    def test_text_around_the_pem_is_dropped(self, registry: Registry) -> None:
        a = registry.partition(A, REGION)

        ca = registry.cas.register(a, "subject=CN=Shared CA\n" + TestCA().pem, mode=CertificateMode.SNI_ONLY)

        assert ca.pem == TestCA().pem

    @pytest.mark.parametrize("kind", ["P-256", "P-384", "P-521", "RSA-2048"])
    def test_key_is_accepted(self, registry: Registry, kind: str) -> None:
        ca = TestCA(key=make_key("kind", kind))

        assert register_default(registry, registry.partition(A, REGION), ca).mode is CertificateMode.DEFAULT

    @pytest.mark.parametrize("kind", ["RSA-1024", "secp256k1", "Ed25519", "DSA"])
    def test_key_is_refused(self, registry: Registry, kind: str) -> None:
        a = registry.partition(A, REGION)

        error = refused(lambda: register_sni_only(registry, a, TestCA(key=make_key("kind", kind))))

        assert error.code == "CertificateValidationException"
        assert "The key in the certificate is not valid" in error.message

    def test_pss_signature_is_accepted(self, registry: Registry) -> None:
        a = registry.partition(A, REGION)
        key = make_key("kind", "RSA-2048")
        assert isinstance(key, rsa.RSAPrivateKey)
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
        certificate = make_certificate("PSS CA", key=key, ca=True, rsa_padding=pss)

        ca = registry.cas.register(a, pem(certificate), mode=CertificateMode.SNI_ONLY)

        assert list(a.cas) == [ca.certificate_id]

    def test_sha224_signature_is_refused(self, registry: Registry) -> None:
        a = registry.partition(A, REGION)
        weak = make_certificate("CA", key=make_key("ca"), ca=True, algorithm=hashes.SHA224())

        error = refused(lambda: registry.cas.register(a, pem(weak), mode=CertificateMode.SNI_ONLY))

        assert error.code == "CertificateValidationException"
        assert "signature algorithm" in error.message

    def test_sha1_signature_is_refused(self, registry: Registry, clock: Clock) -> None:
        clock.now = VALID_WHEN_SHA1_IS

        error = refused(
            lambda: registry.cas.register(registry.partition(A, REGION), SHA1_CA, mode=CertificateMode.SNI_ONLY)
        )

        assert error.code == "CertificateValidationException"
        assert "signature algorithm" in error.message

    @pytest.mark.parametrize("ca", [None, False])
    def test_certificate_without_ca_true_is_refused(self, registry: Registry, ca: bool | None) -> None:
        a = registry.partition(A, REGION)
        certificate = make_certificate("no CA", key=make_key("ca"), ca=ca)

        error = refused(lambda: registry.cas.register(a, pem(certificate), mode=CertificateMode.SNI_ONLY))

        assert error.code == "CertificateValidationException"
        assert error.message == (
            "CA certificate is not valid. The CA certificate does not have the basicConstraints extension as true"
        )

    @pytest.mark.parametrize(
        ("not_before", "not_after", "words"),
        [
            (NOW - timedelta(days=2), NOW - timedelta(days=1), "expired"),
            (NOW + timedelta(days=1), NOW + timedelta(days=2), "not valid yet"),
        ],
    )
    def test_ca_outside_its_validity_is_refused(
        self, registry: Registry, not_before: datetime, not_after: datetime, words: str
    ) -> None:
        a = registry.partition(A, REGION)
        certificate = make_certificate("CA", key=make_key("ca"), ca=True, not_before=not_before, not_after=not_after)

        error = refused(lambda: registry.cas.register(a, pem(certificate), mode=CertificateMode.SNI_ONLY))

        assert error.code == "CertificateValidationException"
        assert words in error.message

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "hello",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            TestCA().pem[:200],
            TestCA().pem + TestCA(subject="Other").pem,
            "\ud800" + TestCA().pem,
        ],
        ids=["empty", "text", "no-der", "cut", "two", "surrogate"],
    )
    def test_what_is_no_single_pem_certificate_is_refused(self, registry: Registry, text: str) -> None:
        a = registry.partition(A, REGION)

        error = refused(lambda: registry.cas.register(a, text, mode=CertificateMode.SNI_ONLY))

        assert error.code == "CertificateValidationException"

    def test_ten_cas_with_one_subject_and_no_eleventh(self, registry: Registry) -> None:
        a = registry.partition(A, REGION)
        for serial in range(1, 11):
            register_sni_only(registry, a, TestCA(serial=serial))

        error = refused(lambda: register_sni_only(registry, a, TestCA(serial=11)))

        assert error.code == "LimitExceededException"
        register_sni_only(registry, a, TestCA(subject="Another CA"))
        register_sni_only(registry, registry.partition(B, REGION), TestCA(serial=11))

    def test_deleted_cas_do_not_count(self, registry: Registry) -> None:
        a = registry.partition(A, REGION)
        for serial in range(1, 15):
            ca = register_sni_only(registry, a, TestCA(serial=serial))
            registry.cas.delete(a, ca.certificate_id)

        assert a.cas == {}
        assert a.cas_by_subject == {}

    def test_name_of_the_second_default_refusal_is_a_setting(self) -> None:
        registry = make_registry(settings=ControlSettings(second_default_error="InvalidRequestException"))
        register_default(registry, registry.partition(A, REGION), TestCA())

        error = refused(lambda: register_default(registry, registry.partition(B, REGION), TestCA()))

        assert error.code == "InvalidRequestException"
        assert error.fields == {}


class TestVerificationCertificate:
    """§1.2: what proves that the caller has the CA's private key."""

    def error_for(self, registry: Registry, verification_pem: str) -> APIError:
        a = registry.partition(A, REGION)
        error = refused(lambda: registry.cas.register(a, TestCA().pem, verification_pem=verification_pem))
        assert a.cas == {}
        return error

    def code(self, registry: Registry) -> str:
        return registry.cas.registration_code(registry.partition(A, REGION))

    def test_signed_by_another_key_is_refused(self, registry: Registry) -> None:
        stranger = TestCA(key=make_key("stranger"))

        error = self.error_for(registry, stranger.verification(self.code(registry)))

        assert error.code == "CertificateValidationException"
        assert "not signed by the private key of the CA certificate" in error.message

    def test_signed_by_a_ca_of_another_name_is_refused(self, registry: Registry) -> None:
        stranger = TestCA(subject="Other CA")

        error = self.error_for(registry, stranger.verification(self.code(registry)))

        assert error.code == "CertificateValidationException"

    def test_no_pem_is_refused(self, registry: Registry) -> None:
        assert self.error_for(registry, "verification").code == "CertificateValidationException"

    def test_expired_is_refused(self, registry: Registry) -> None:
        expired = make_certificate(
            self.code(registry),
            key=make_key("verification"),
            issuer="Shared CA",
            issuer_key=make_key("ca"),
            not_after=NOW - timedelta(seconds=1),
        )

        error = self.error_for(registry, pem(expired))

        assert error.code == "CertificateValidationException"
        assert "expired" in error.message

    def test_weak_key_is_refused(self, registry: Registry) -> None:
        weak = TestCA().leaf(self.code(registry), key=make_key("weak", "RSA-1024"))

        assert self.error_for(registry, pem(weak)).code == "CertificateValidationException"

    @pytest.mark.parametrize("change", [str.upper, lambda code: code[:-1], lambda code: code[:-1] + " ", lambda _: "x"])
    def test_any_other_common_name_is_refused(self, registry: Registry, change: Callable[[str], str]) -> None:
        error = self.error_for(registry, TestCA().verification(change(self.code(registry))))

        assert error.code == "RegistrationCodeValidationException"

    def test_code_that_was_never_asked_for_is_refused(self, registry: Registry) -> None:
        assert self.error_for(registry, TestCA().verification("None")).code == "RegistrationCodeValidationException"

    def test_code_that_was_deleted_is_refused(self, registry: Registry) -> None:
        code = self.code(registry)
        registry.cas.delete_registration_code(registry.partition(A, REGION))

        assert self.error_for(registry, TestCA().verification(code)).code == "RegistrationCodeValidationException"


class TestRegistrationCode:
    """§1.2, "verification flow"."""

    def test_is_64_hexadecimal_digits_and_stable_until_deleted(self, registry: Registry) -> None:
        a = registry.partition(A, REGION)

        first, again = registry.cas.registration_code(a), registry.cas.registration_code(a)
        registry.cas.delete_registration_code(a)
        after = registry.cas.registration_code(a)

        assert len(first) == 64
        assert set(first) <= set("0123456789abcdef")
        assert first == again
        assert after != first

    def test_differs_by_account_and_region(self, registry: Registry) -> None:
        codes = {
            registry.cas.registration_code(registry.partition(account, region))
            for account in (A, B)
            for region in (REGION, "eu-west-1")
        }

        assert len(codes) == 4

    def test_none_to_delete_is_not_found(self, registry: Registry) -> None:
        a = registry.partition(A, REGION)

        assert refused(lambda: registry.cas.delete_registration_code(a)).code == "ResourceNotFoundException"


class TestRegistrationConfig:
    """§1.2 and §3: what a first connection under the CA runs."""

    def register(self, registry: Registry, config: RegistrationConfig) -> CACertificate:
        return registry.cas.register(
            registry.partition(A, REGION),
            TestCA().pem,
            mode=CertificateMode.SNI_ONLY,
            registration_config=config,
        )

    def make_template(self, registry: Registry, kind: TemplateType = TemplateType.JITP) -> None:
        registry.templates.create(
            registry.partition(A, REGION), "fleet", body="a template", role_arn=ROLE, type=kind, enabled=True
        )

    def test_none_means_jitr(self, registry: Registry) -> None:
        a = registry.partition(A, REGION)
        ca = register_sni_only(registry, a, TestCA())

        assert registry.cas.template_of(a, ca) is None

    def test_body_with_role(self, registry: Registry) -> None:
        ca = self.register(registry, RegistrationConfig(template_body="a template", role_arn=ROLE))

        template = registry.cas.template_of(registry.partition(A, REGION), ca)

        assert template == EffectiveTemplate(body="a template", role_arn=ROLE, name=None, enabled=True)

    def test_named_template_is_followed_to_its_default_version(self, registry: Registry) -> None:
        a = registry.partition(A, REGION)
        self.make_template(registry)
        ca = self.register(registry, RegistrationConfig(template_name="fleet"))
        registry.templates.create_version(a, "fleet", "a better template", set_as_default=True)
        registry.templates.update(a, "fleet", enabled=False)

        template = registry.cas.template_of(a, ca)

        assert template == EffectiveTemplate(body="a better template", role_arn=ROLE, name="fleet", enabled=False)

    @pytest.mark.parametrize(
        ("config", "code"),
        [
            (RegistrationConfig(template_name="none"), "ResourceNotFoundException"),
            (RegistrationConfig(template_body=BAD_TEMPLATE, role_arn=ROLE), "InvalidRequestException"),
            (RegistrationConfig(template_body="a template"), "InvalidRequestException"),
            (RegistrationConfig(role_arn=ROLE), "InvalidRequestException"),
            (RegistrationConfig(), "InvalidRequestException"),
            (RegistrationConfig(template_name="fleet", role_arn=ROLE), "InvalidRequestException"),
            (RegistrationConfig(template_name="fleet", template_body="a template"), "InvalidRequestException"),
        ],
    )
    def test_what_could_not_provision_is_refused(
        self, registry: Registry, config: RegistrationConfig, code: str
    ) -> None:
        self.make_template(registry)

        assert refused(lambda: self.register(registry, config)).code == code
        assert registry.partition(A, REGION).cas == {}

    def test_fleet_provisioning_template_is_refused(self, registry: Registry) -> None:
        self.make_template(registry, TemplateType.FLEET_PROVISIONING)

        error = refused(lambda: self.register(registry, RegistrationConfig(template_name="fleet")))

        assert error.code == "InvalidRequestException"


class TestUpdate:
    """§1.3."""

    def test_changes_are_counted_and_dated(self, registry: Registry, clock: Clock) -> None:
        a = registry.partition(A, REGION)
        ca = register_sni_only(registry, a, TestCA())
        clock.advance(5)

        changed = registry.cas.update(
            a,
            ca.certificate_id,
            status=CACertificateStatus.ACTIVE,
            auto_registration=AutoRegistrationStatus.ENABLE,
        )

        assert changed.registers_devices
        assert changed.customer_version == 2
        assert changed.last_modified_date == ca.creation_date + 5
        assert (changed.creation_date, changed.generation_id) == (ca.creation_date, ca.generation_id)
        assert registry.cas.get(a, ca.certificate_id) == changed

    def test_nothing_to_change_changes_nothing(self, registry: Registry, clock: Clock) -> None:
        a = registry.partition(A, REGION)
        ca = register_sni_only(registry, a, TestCA())
        clock.advance(5)

        assert registry.cas.update(a, ca.certificate_id, status=CACertificateStatus.INACTIVE) == ca

    def test_jitp_becomes_jitr_by_removing_and_enabling_again(self, registry: Registry) -> None:
        a = registry.partition(A, REGION)
        ca = registry.cas.register(
            a,
            TestCA().pem,
            mode=CertificateMode.SNI_ONLY,
            auto_registration=True,
            registration_config=RegistrationConfig(template_body="a template", role_arn=ROLE),
        )

        removed = registry.cas.update(a, ca.certificate_id, remove_auto_registration=True)
        enabled = registry.cas.update(a, ca.certificate_id, auto_registration=AutoRegistrationStatus.ENABLE)

        assert removed.auto_registration is AutoRegistrationStatus.DISABLE
        assert enabled.auto_registration is AutoRegistrationStatus.ENABLE
        assert registry.cas.template_of(a, enabled) is None

    def test_removing_and_setting_at_once_is_refused(self, registry: Registry) -> None:
        a = registry.partition(A, REGION)
        ca = register_sni_only(registry, a, TestCA())

        error = refused(
            lambda: registry.cas.update(
                a,
                ca.certificate_id,
                auto_registration=AutoRegistrationStatus.ENABLE,
                remove_auto_registration=True,
            )
        )

        assert error.code == "InvalidRequestException"

    def test_bad_template_is_refused_and_nothing_else_changed(self, registry: Registry) -> None:
        a = registry.partition(A, REGION)
        ca = register_sni_only(registry, a, TestCA())

        error = refused(
            lambda: registry.cas.update(
                a,
                ca.certificate_id,
                status=CACertificateStatus.ACTIVE,
                registration_config=RegistrationConfig(template_body=BAD_TEMPLATE, role_arn=ROLE),
            )
        )

        assert error.code == "InvalidRequestException"
        assert registry.cas.get(a, ca.certificate_id) == ca

    def test_unknown_ca_is_not_found(self, registry: Registry) -> None:
        a = registry.partition(A, REGION)

        assert refused(lambda: registry.cas.update(a, "0" * 64)).code == "ResourceNotFoundException"


class TestDelete:
    """§1.3."""

    def test_active_ca_is_refused(self, registry: Registry) -> None:
        a = registry.partition(A, REGION)
        ca = registry.cas.register(a, TestCA().pem, mode=CertificateMode.SNI_ONLY, active=True)

        error = refused(lambda: registry.cas.delete(a, ca.certificate_id))

        assert error.code == "CertificateStateException"
        assert a.cas == {ca.certificate_id: ca}

    def test_changing_the_mode_means_deleting_and_registering_again(self, registry: Registry) -> None:
        a = registry.partition(A, REGION)
        ca = register_default(registry, a, TestCA())
        registry.cas.delete(a, ca.certificate_id)

        again = register_sni_only(registry, a, TestCA())

        assert again.certificate_id == ca.certificate_id
        assert again.mode is CertificateMode.SNI_ONLY
        assert again.generation_id != ca.generation_id
        assert registry.default_ca_holders(REGION, ca.certificate_id) is None

    def test_unknown_ca_is_not_found(self, registry: Registry) -> None:
        a = registry.partition(A, REGION)

        assert refused(lambda: registry.cas.delete(a, "0" * 64)).code == "ResourceNotFoundException"

    def test_deleting_in_one_account_leaves_the_other_alone(self, registry: Registry) -> None:
        a, b = registry.partition(A, REGION), registry.partition(B, REGION)
        ca = register_sni_only(registry, a, TestCA())
        other = register_sni_only(registry, b, TestCA())

        registry.cas.delete(a, ca.certificate_id)

        assert b.cas == {other.certificate_id: other}


class TestIssuer:
    """Which CA of an account signed a leaf: §1.1 ("directly signs"), §3 ("chain disambiguates")."""

    def test_is_found_by_name_and_signature(self, registry: Registry) -> None:
        a = registry.partition(A, REGION)
        ca = register_sni_only(registry, a, TestCA())
        register_sni_only(registry, a, TestCA(key=make_key("renewed")))
        register_sni_only(registry, a, TestCA(subject="Other CA"))

        assert registry.issuer_of(a, TestCA().leaf()) == ca

    def test_is_none_for_a_stranger(self, registry: Registry) -> None:
        a = registry.partition(A, REGION)
        register_sni_only(registry, a, TestCA())

        assert registry.issuer_of(a, TestCA(key=make_key("stranger")).leaf()) is None
        assert registry.issuer_of(a, TestCA(subject="Stranger").leaf()) is None
        assert registry.issuer_of(registry.partition(B, REGION), TestCA().leaf()) is None

    def test_parent_of_the_issuer_does_not_count(self, registry: Registry) -> None:
        a = registry.partition(A, REGION)
        root, intermediate = TestCA(subject="Root"), TestCA(subject="Issuing", key=make_key("issuing"))
        register_sni_only(registry, a, root)

        assert registry.issuer_of(a, intermediate.leaf()) is None

    def test_of_several_with_one_key_the_presented_one_is_taken(self, registry: Registry) -> None:
        a = registry.partition(A, REGION)
        old = register_sni_only(registry, a, TestCA(serial=1))
        new = register_sni_only(registry, a, TestCA(serial=2))
        leaf = TestCA().leaf()

        assert registry.issuer_of(a, leaf, [TestCA(serial=2).certificate]) == new
        assert registry.issuer_of(a, leaf, [TestCA(serial=1).certificate]) == old
        assert registry.issuer_of(a, leaf) == old

    def test_of_several_with_one_key_one_that_registers_devices_is_taken(self, registry: Registry) -> None:
        a = registry.partition(A, REGION)
        register_sni_only(registry, a, TestCA(serial=1))
        new = registry.cas.register(
            a, TestCA(serial=2).pem, mode=CertificateMode.SNI_ONLY, active=True, auto_registration=True
        )

        assert registry.issuer_of(a, TestCA().leaf()) == new

    def test_leaf_with_a_strange_signature_has_no_issuer(self, registry: Registry) -> None:
        """The issuer's name fits, the kind of signature does not fit the CA's key."""
        a = registry.partition(A, REGION)
        register_sni_only(registry, a, TestCA())
        leaf = make_certificate(
            "device", key=make_key("leaf"), issuer="Shared CA", issuer_key=make_key("odd", "Ed25519")
        )
        assert leaf.issuer == name("Shared CA")

        assert registry.issuer_of(a, leaf) is None
