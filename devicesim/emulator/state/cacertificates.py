"""CA certificates: registering, changing and deleting them (aws-iot-behaviour.md §1.1–1.3, §10a)."""

from collections.abc import Sequence
from dataclasses import replace

from cryptography import x509

from devicesim.emulator.apierrors import (
    APIError,
    certificate_state,
    certificate_validation,
    invalid_request,
    limit_exceeded,
    registration_code_validation,
    resource_already_exists,
    resource_not_found,
)
from devicesim.emulator.state import x509rules
from devicesim.emulator.state.environment import Environment
from devicesim.emulator.state.partition import Partition
from devicesim.emulator.state.records import (
    AutoRegistrationStatus,
    CACertificate,
    CACertificateStatus,
    CertificateMode,
    EffectiveTemplate,
    RegistrationConfig,
    TemplateType,
)
from devicesim.emulator.state.tags import Tags
from devicesim.pki.identity import certificate_id, certificate_pem


class CACertificates:
    """The CAs of every account and Region, and who holds which in DEFAULT mode."""

    def __init__(self, environment: Environment, tags: Tags) -> None:
        self._environment = environment
        self._tags = tags
        self._default_holders: dict[tuple[str, str], Partition] = {}
        """By Region and certificate id: at most one account of a Region holds a CA in DEFAULT mode (§1.1)."""

    def adopt(self, partition: Partition) -> None:
        """Take in an account with the CAs that it holds already."""
        for ca in partition.cas.values():
            if ca.mode is CertificateMode.DEFAULT:
                self._default_holders[partition.region, ca.certificate_id] = partition

    def clear(self) -> None:
        """Every account is forgotten."""
        self._default_holders.clear()

    def default_holder(self, region: str, ca_certificate_id: str) -> Partition | None:
        """The one account of the Region that holds the CA in DEFAULT mode."""
        return self._default_holders.get((region, ca_certificate_id))

    def registration_code(self, partition: Partition) -> str:
        """Answer the account's code, making it on the first call (§1.2)."""
        if partition.registration_code is None:
            partition.registration_code = self._environment.hex(32)
        return partition.registration_code

    def delete_registration_code(self, partition: Partition) -> None:
        if partition.registration_code is None:
            raise resource_not_found("The registration code does not exist")
        partition.registration_code = None

    def get(self, partition: Partition, ca_certificate_id: str) -> CACertificate:
        try:
            return partition.cas[ca_certificate_id]
        except KeyError:
            raise resource_not_found(f"The CA certificate {ca_certificate_id} does not exist") from None

    def register(
        self,
        partition: Partition,
        ca_pem: str,
        *,
        verification_pem: str | None = None,
        mode: CertificateMode = CertificateMode.DEFAULT,
        active: bool = False,
        auto_registration: bool = False,
        registration_config: RegistrationConfig | None = None,
        tags: Sequence[tuple[str, str]] = (),
    ) -> CACertificate:
        """Register a CA (RegisterCACertificate). Everything is checked before anything is stored."""
        if mode is CertificateMode.SNI_ONLY and verification_pem:
            raise self._contradiction("must be empty when the certificate mode is SNI_ONLY")
        if mode is CertificateMode.DEFAULT and not verification_pem:
            raise self._contradiction("must not be empty when the certificate mode is DEFAULT")
        now = self._environment.now()
        certificate = x509rules.parse(ca_pem, "CA certificate")
        x509rules.check_is_ca(certificate)
        x509rules.check_algorithms(certificate, "CA certificate", curves=self._environment.settings.accepted_curves)
        x509rules.check_validity(certificate, now, "CA certificate")
        if verification_pem:
            self._check_verification(partition, certificate, verification_pem, now)
        if registration_config is not None:
            self.check_registration_config(partition, registration_config)
        ca_id = certificate_id(certificate)
        self._check_unclaimed(partition, ca_id, mode)
        same_subject = partition.cas_by_subject.get(certificate.subject.public_bytes(), {})
        limit = self._environment.settings.max_cas_with_same_subject
        if len(same_subject) >= limit:
            raise limit_exceeded(f"The limit of {limit} CA certificates with the same subject is reached")
        checked_tags = self._tags.checked(tags)
        ca = CACertificate(
            certificate_id=ca_id,
            arn=partition.arn("cacert", ca_id),
            sequence=partition.next_sequence(),
            certificate=certificate,
            pem=certificate_pem(certificate),
            mode=mode,
            status=CACertificateStatus.ACTIVE if active else CACertificateStatus.INACTIVE,
            auto_registration=AutoRegistrationStatus.ENABLE if auto_registration else AutoRegistrationStatus.DISABLE,
            registration_config=registration_config,
            creation_date=now,
            last_modified_date=now,
            customer_version=1,
            generation_id=self._environment.hex(16),
            not_before=certificate.not_valid_before_utc.timestamp(),
            not_after=certificate.not_valid_after_utc.timestamp(),
        )
        partition.put_ca(ca)
        if mode is CertificateMode.DEFAULT:
            self._default_holders[partition.region, ca_id] = partition
        if checked_tags:
            partition.tags[ca.arn] = checked_tags
        return ca

    def update(
        self,
        partition: Partition,
        ca_certificate_id: str,
        *,
        status: CACertificateStatus | None = None,
        auto_registration: AutoRegistrationStatus | None = None,
        registration_config: RegistrationConfig | None = None,
        remove_auto_registration: bool = False,
    ) -> CACertificate:
        """Change a CA (UpdateCACertificate). The mode can not be changed: delete and register again (§1.1)."""
        ca = self.get(partition, ca_certificate_id)
        contradictory = remove_auto_registration and (
            auto_registration is AutoRegistrationStatus.ENABLE or registration_config is not None
        )
        if contradictory and self._environment.settings.remove_and_set_auto_registration == "refuse":
            raise invalid_request("Auto registration can not be removed and set in the same request")
        if registration_config is not None:
            self.check_registration_config(partition, registration_config)
        changed = replace(
            ca,
            status=status or ca.status,
            auto_registration=auto_registration or ca.auto_registration,
            registration_config=registration_config or ca.registration_config,
        )
        if remove_auto_registration:
            changed = replace(changed, auto_registration=AutoRegistrationStatus.DISABLE, registration_config=None)
        if changed == ca:
            return ca
        changed = replace(changed, last_modified_date=self._environment.now(), customer_version=ca.customer_version + 1)
        partition.put_ca(changed)
        return changed

    def delete(self, partition: Partition, ca_certificate_id: str) -> None:
        """Delete an inactive CA. Certificates registered under it stay, in the mode they have (§1.3)."""
        ca = self.get(partition, ca_certificate_id)
        if ca.status is CACertificateStatus.ACTIVE:
            raise certificate_state(f"The CA certificate {ca.certificate_id} is ACTIVE and can not be deleted")
        partition.remove_ca(ca)
        partition.tags.pop(ca.arn, None)
        if ca.mode is CertificateMode.DEFAULT:
            del self._default_holders[partition.region, ca.certificate_id]

    def issuers_of(self, partition: Partition, leaf: x509.Certificate) -> list[CACertificate]:
        """Every CA of the account that directly signed ``leaf``, oldest first.

        More than one only when CAs with the same subject hold the same key, as a renewed CA certificate does.
        """
        candidates = partition.cas_by_subject.get(leaf.issuer.public_bytes(), {})
        cas = (partition.cas[ca_id] for ca_id in candidates)
        return [ca for ca in cas if x509rules.issued_by(leaf, ca.certificate)]

    def issuer_of(
        self, partition: Partition, leaf: x509.Certificate, presented: Sequence[x509.Certificate] = ()
    ) -> CACertificate | None:
        """The CA of the account that directly signed ``leaf``.

        Of several, one that the device sent in its chain (§3, S), else as ``ControlSettings.ambiguous_issuer`` says.
        """
        issuers = self.issuers_of(partition, leaf)
        sent = {certificate_id(certificate) for certificate in presented} if len(issuers) > 1 else set()
        by_status = self._environment.settings.ambiguous_issuer == "registering"
        issuers.sort(key=lambda ca: (ca.certificate_id not in sent, by_status and not ca.registers_devices))
        return issuers[0] if issuers else None

    def template_of(self, partition: Partition, ca: CACertificate) -> EffectiveTemplate | None:
        """The template that a first connection under ``ca`` runs (JITP); ``None`` means JITR."""
        config = ca.registration_config
        if config is None:
            return None
        if config.template_name is None:
            if config.template_body is None or config.role_arn is None:
                return None
            return EffectiveTemplate(body=config.template_body, role_arn=config.role_arn, name=None, enabled=True)
        template = partition.templates.get(config.template_name)
        if template is None:  # deleted although a CA names it, as the settings can have it
            return EffectiveTemplate(body="{}", role_arn="", name=config.template_name, enabled=False)
        return EffectiveTemplate(
            body=template.body, role_arn=template.role_arn, name=template.name, enabled=template.enabled
        )

    def check_registration_config(self, partition: Partition, config: RegistrationConfig) -> None:
        """Refuse a configuration that could not provision: templates are validated here, not later (§1.2, S)."""
        if config.template_name is not None:
            if config.template_body is not None or config.role_arn is not None:
                raise invalid_request("Specify either templateName or templateBody with roleArn, not both")
            template = partition.templates.get(config.template_name)
            if template is None:
                raise APIError(
                    self._environment.settings.unknown_template_error,
                    f"The provisioning template {config.template_name} does not exist",
                )
            if template.type is not TemplateType.JITP:
                raise invalid_request(
                    f"The provisioning template {config.template_name} is of type {template.type}, JITP is required"
                )
            return
        if config.template_body is None or config.role_arn is None:
            raise invalid_request("The registration config must have a templateName, or a templateBody and a roleArn")
        self._environment.validate_template(config.template_body)

    def _check_verification(
        self, partition: Partition, ca: x509.Certificate, verification_pem: str, now: float
    ) -> None:
        verification = x509rules.parse(verification_pem, "Verification certificate")
        x509rules.check_algorithms(
            verification, "Verification certificate", curves=self._environment.settings.accepted_curves
        )
        x509rules.check_validity(verification, now, "Verification certificate")
        if not x509rules.issued_by(verification, ca):
            raise certificate_validation(
                "Verification certificate is not valid. It is not signed by the private key of the CA certificate"
            )
        names = x509rules.common_names(verification)
        if partition.registration_code is None or names != (partition.registration_code,):
            raise registration_code_validation(
                "The common name of the verification certificate is not the registration code of this account"
            )

    def _contradiction(self, what: str) -> APIError:
        code = self._environment.settings.verification_contradiction_error
        return APIError(code, f"The verification certificate {what}")

    def _check_unclaimed(self, partition: Partition, ca_id: str, mode: CertificateMode) -> None:
        mine = partition.cas.get(ca_id)
        if mine is not None:
            raise resource_already_exists(
                f"The CA certificate is already registered in this account, in mode {mine.mode}",
                resource_id=ca_id,
                resource_arn=mine.arn,
            )
        if mode is CertificateMode.DEFAULT and (partition.region, ca_id) in self._default_holders:
            # Names nobody: AWS does not tell one account what another holds. The id is the caller's own certificate's.
            code = self._environment.settings.second_default_error
            message = "The CA certificate is already registered in DEFAULT mode by another account in this Region"
            if code == "ResourceAlreadyExistsException":
                raise resource_already_exists(message, resource_id=ca_id, resource_arn=partition.arn("cacert", ca_id))
            raise APIError(code, message)
