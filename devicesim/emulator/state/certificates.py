"""Device certificates: registering, changing and deleting them (aws-iot-behaviour.md §1.4, §10a)."""

from dataclasses import replace

from cryptography import x509

from devicesim.emulator.apierrors import (
    APIError,
    certificate_state,
    certificate_validation,
    delete_conflict,
    resource_already_exists,
    resource_not_found,
)
from devicesim.emulator.state import x509rules
from devicesim.emulator.state.cacertificates import CACertificates
from devicesim.emulator.state.environment import Environment
from devicesim.emulator.state.partition import Partition
from devicesim.emulator.state.records import (
    CACertificate,
    CACertificateStatus,
    CertificateChange,
    CertificateChangeKind,
    CertificateMode,
    CertificateStatus,
    DeviceCertificate,
)
from devicesim.pki.identity import certificate_id, certificate_pem

_ASKABLE = (CertificateStatus.ACTIVE, CertificateStatus.INACTIVE, CertificateStatus.REVOKED)
"""Statuses a caller may ask for; the others are AWS's own, or deprecated (botocore, D)."""


class Certificates:
    """The device certificates of every account and Region, and who holds which in DEFAULT mode."""

    def __init__(self, environment: Environment, cas: CACertificates) -> None:
        self._environment = environment
        self._cas = cas
        self._default_holders: dict[tuple[str, str], dict[str, Partition]] = {}
        """By Region and certificate id: accounts (by id) that hold the leaf in DEFAULT mode."""

    def default_holder(self, region: str, certificate_id: str) -> Partition | None:
        """The account whose DEFAULT record of this leaf answers a connection without SNI.

        Two accounts can hold one only after the CA moved from one to the other (see
        ``ControlSettings.same_leaf_default_in_two_accounts``). Then the one that holds the issuing CA in DEFAULT mode
        now is meant, and nobody where neither does (I: AWS does not say, and the emulator is the stricter).
        """
        holders = tuple(self._default_holders.get((region, certificate_id), {}).values())
        if len(holders) == 1:
            return holders[0]
        for partition in holders:
            ca_id = partition.certificates[certificate_id].ca_certificate_id
            if ca_id is not None and self._cas.default_holder(region, ca_id) is partition:
                return partition
        return None

    def has_default_holder(self, region: str, certificate_id: str) -> bool:
        """Whether any account of the Region has a DEFAULT record of this leaf, also where none of several answers."""
        return (region, certificate_id) in self._default_holders

    def get(self, partition: Partition, certificate_id: str) -> DeviceCertificate:
        try:
            return partition.certificates[certificate_id]
        except KeyError:
            raise resource_not_found(f"The certificate {certificate_id} does not exist") from None

    def register(
        self,
        partition: Partition,
        pem: str,
        *,
        ca_pem: str | None = None,
        status: CertificateStatus = CertificateStatus.INACTIVE,
    ) -> DeviceCertificate:
        """Register a leaf under a CA of the account, in the CA's mode (RegisterCertificate)."""
        _check_askable_at_registration(status)
        leaf = x509rules.parse(pem, "Certificate")
        x509rules.check_algorithms(leaf, "Certificate")
        ca = self._signer(partition, leaf, ca_pem)
        if ca.status is not CACertificateStatus.ACTIVE:
            # rule D (§1.3: "no further registration under it"), exception I
            raise certificate_state(f"The CA certificate {ca.certificate_id} is not ACTIVE")
        return self._store(partition, leaf, status=status, mode=ca.mode, ca_id=ca.certificate_id)

    def register_without_ca(
        self, partition: Partition, pem: str, *, status: CertificateStatus = CertificateStatus.INACTIVE
    ) -> DeviceCertificate:
        """Register a leaf alone, always SNI_ONLY (RegisterCertificateWithoutCA, §1.4)."""
        _check_askable_at_registration(status)
        leaf = x509rules.parse(pem, "Certificate")
        x509rules.check_algorithms(leaf, "Certificate")
        return self._store(partition, leaf, status=status, mode=CertificateMode.SNI_ONLY, ca_id=None)

    def auto_register(self, partition: Partition, leaf: x509.Certificate, ca: CACertificate) -> DeviceCertificate:
        """Register a leaf on its first connection (JITR, JITP): PENDING_ACTIVATION, in the CA's mode (§2).

        The caller has found that the account has no record of it and that ``ca`` registers devices; the rules of the
        API (which statuses may be asked for, CA given or not) do not apply. Raises ``CertificateValidationException``
        for keys and signatures that AWS does not take, however they come.
        """
        x509rules.check_algorithms(leaf, "Certificate")
        return self._store(
            partition,
            leaf,
            status=CertificateStatus.PENDING_ACTIVATION,
            mode=ca.mode,
            ca_id=ca.certificate_id,
        )

    def update(self, partition: Partition, certificate_id: str, status: CertificateStatus) -> DeviceCertificate:
        """Change the status (UpdateCertificate); asking for the status it has changes nothing."""
        certificate = self.get(partition, certificate_id)
        if status not in _ASKABLE:
            raise certificate_state(f"The status {status} can not be set")
        if certificate.status is status:
            return certificate
        if certificate.status is CertificateStatus.PENDING_TRANSFER:
            raise certificate_state(f"The certificate {certificate_id} is in transfer")
        if certificate.status is CertificateStatus.REVOKED and self._environment.settings.revoked_is_final:
            raise certificate_state(f"The certificate {certificate_id} is REVOKED and can not become {status}")
        return self._set_status(partition, certificate, status)

    def delete(self, partition: Partition, certificate_id: str, *, force: bool = False) -> None:
        """Delete a certificate that is neither ACTIVE nor attached; ``force`` detaches policies, not things (§1.4)."""
        certificate = self.get(partition, certificate_id)
        if certificate.status in (CertificateStatus.ACTIVE, CertificateStatus.PENDING_TRANSFER):
            raise certificate_state(
                f"The certificate {certificate_id} is {certificate.status} and can not be deleted; deactivate it first"
            )
        if partition.things_of_principal.get(certificate.arn):
            raise delete_conflict(f"Things are attached to the certificate {certificate_id}; detach them first")
        policies = tuple(partition.policies_of_target.get(certificate.arn, ()))
        if policies and not force:
            raise delete_conflict(f"Policies are attached to the certificate {certificate_id}; detach them first")
        for name in policies:
            partition.detach_policy(name, certificate.arn)
        partition.remove_certificate(certificate)
        key = (partition.region, certificate_id)
        holders = self._default_holders.get(key)
        if certificate.mode is CertificateMode.DEFAULT and holders is not None:
            del holders[partition.account_id]
            if not holders:
                del self._default_holders[key]
        self._tell(partition, certificate_id, None, certificate.status, CertificateChangeKind.DELETED)

    def _set_status(
        self, partition: Partition, certificate: DeviceCertificate, status: CertificateStatus
    ) -> DeviceCertificate:
        changed = replace(
            certificate,
            status=status,
            last_modified_date=self._environment.now(),
            customer_version=certificate.customer_version + 1,
        )
        partition.put_certificate(changed)
        self._tell(partition, changed.certificate_id, changed, certificate.status, CertificateChangeKind.STATUS)
        return changed

    def _signer(self, partition: Partition, leaf: x509.Certificate, ca_pem: str | None) -> CACertificate:
        if ca_pem is not None:
            ca = partition.cas.get(certificate_id(x509rules.parse(ca_pem, "CA certificate")))
            if ca is None:
                # exception I, for this and the next two
                raise certificate_validation("CA certificate is not valid. It is not registered in this account")
            if not x509rules.issued_by(leaf, ca.certificate):
                raise certificate_validation("Certificate is not valid. It is not signed by the CA certificate given")
            return ca
        issuers = self._cas.issuers_of(partition, leaf)
        if not issuers:
            raise certificate_validation(
                "Certificate is not valid. The CA certificate that signed it is not registered in this account"
            )
        if len(issuers) > 1:
            # §1.4, D: same subject and public key
            raise APIError(
                "CertificateConflictException",
                "More than one CA certificate with the same subject and public key is registered; "
                "specify the one that signed the certificate",
            )
        return issuers[0]

    def _store(
        self,
        partition: Partition,
        leaf: x509.Certificate,
        *,
        status: CertificateStatus,
        mode: CertificateMode,
        ca_id: str | None,
    ) -> DeviceCertificate:
        leaf_id = certificate_id(leaf)
        mine = partition.certificates.get(leaf_id)
        holders = self._default_holders.get((partition.region, leaf_id), {})
        claimed = mode is CertificateMode.DEFAULT and bool(holders)
        if mine is not None or (claimed and not self._environment.settings.same_leaf_default_in_two_accounts):
            # text: S (§1.4)
            raise resource_already_exists(
                "The certificate is already provisioned or registered",
                resource_id=leaf_id,
                resource_arn=partition.certificate_arn(leaf_id),
            )
        now = self._environment.now()
        certificate = DeviceCertificate(
            certificate_id=leaf_id,
            arn=partition.certificate_arn(leaf_id),
            sequence=partition.next_sequence(),
            pem=certificate_pem(leaf),
            status=status,
            mode=mode,
            ca_certificate_id=ca_id,
            creation_date=now,
            last_modified_date=now,
            customer_version=1,
            generation_id=self._environment.hex(16),
            not_before=leaf.not_valid_before_utc.timestamp(),
            not_after=leaf.not_valid_after_utc.timestamp(),
        )
        partition.put_certificate(certificate)
        if mode is CertificateMode.DEFAULT:
            self._default_holders.setdefault((partition.region, leaf_id), {})[partition.account_id] = partition
        self._tell(partition, leaf_id, certificate, None, CertificateChangeKind.REGISTERED)
        return certificate

    def _tell(
        self,
        partition: Partition,
        leaf_id: str,
        certificate: DeviceCertificate | None,
        previous: CertificateStatus | None,
        kind: CertificateChangeKind,
    ) -> None:
        self._environment.tell(
            CertificateChange(
                account_id=partition.account_id,
                region=partition.region,
                certificate_id=leaf_id,
                certificate=certificate,
                previous_status=previous,
                kind=kind,
            )
        )


def _check_askable_at_registration(status: CertificateStatus) -> None:
    if status not in _ASKABLE:
        # text and code: M (§1.4), for PENDING_ACTIVATION; the other two by analogy (I)
        raise certificate_state(f"Not allowed to register certificate with {status} status")
