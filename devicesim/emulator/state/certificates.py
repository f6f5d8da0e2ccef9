"""Device certificates: registering, changing and deleting them (aws-iot-behaviour.md §1.4, §10a)."""

from dataclasses import replace
from datetime import datetime

from cryptography import x509

from devicesim.emulator.apierrors import (
    APIError,
    certificate_state,
    delete_conflict,
    resource_already_exists,
    resource_not_found,
)
from devicesim.emulator.state import x509rules
from devicesim.emulator.state.cacertificates import CACertificates
from devicesim.emulator.state.environment import Environment
from devicesim.emulator.state.issuer import DEFAULT_SUBJECT, KeyPair, PublicKey, read_request
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

    def adopt(self, partition: Partition) -> None:
        """Take in an account with the certificates that it holds already."""
        for certificate in partition.certificates.values():
            self.index(partition, certificate)

    def clear(self) -> None:
        """Every account is forgotten."""
        self._default_holders.clear()

    def default_holder(self, region: str, certificate_id: str) -> Partition | None:
        """The account whose DEFAULT record of this leaf answers a connection without SNI.

        Two accounts can hold one only after the CA moved from one to the other (see
        ``ControlSettings.same_leaf_default_in_two_accounts``). Then the one that holds the issuing CA in DEFAULT mode
        now is meant, and nobody where neither does.
        """
        holders = tuple(self._default_holders.get((region, certificate_id), {}).values())
        if len(holders) == 1:
            return holders[0]
        if not self._environment.settings.moved_default_leaf_answers:
            return None
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
        self._check_algorithms(leaf)
        ca = self._signer(partition, leaf, ca_pem)
        if ca.status is not CACertificateStatus.ACTIVE:
            raise APIError(
                self._environment.settings.inactive_ca_error, f"The CA certificate {ca.certificate_id} is not ACTIVE"
            )
        return self._store(partition, leaf, status=status, mode=ca.mode, ca_id=ca.certificate_id)

    def register_without_ca(
        self, partition: Partition, pem: str, *, status: CertificateStatus = CertificateStatus.INACTIVE
    ) -> DeviceCertificate:
        """Register a leaf alone, always SNI_ONLY (RegisterCertificateWithoutCA, §1.4)."""
        _check_askable_at_registration(status)
        leaf = x509rules.parse(pem, "Certificate")
        self._check_algorithms(leaf)
        return self._store(partition, leaf, status=status, mode=CertificateMode.SNI_ONLY, ca_id=None)

    def create_keys(
        self, partition: Partition, *, active: bool = False, pending: bool = False
    ) -> tuple[DeviceCertificate, KeyPair]:
        """Make a key and a certificate for it (CreateKeysAndCertificate). The private key is answered once and not
        kept. ``pending``: PENDING_ACTIVATION, as a certificate made over MQTT has it until it is provisioned."""
        public_key, pair = self._environment.issuer.key_pair()
        return self._issue(partition, public_key, DEFAULT_SUBJECT, active=active, pending=pending), pair

    def create_claim(self, partition: Partition, not_after: datetime) -> tuple[DeviceCertificate, KeyPair]:
        """Make a key and an ACTIVE certificate for it that ends soon; see :mod:`devicesim.emulator.state.claims`."""
        public_key, pair = self._environment.issuer.key_pair()
        leaf = self._environment.issuer.issue(public_key, now=self._environment.now(), not_after=not_after)
        status, mode = CertificateStatus.ACTIVE, CertificateMode.DEFAULT
        return self._store(partition, leaf, status=status, mode=mode, ca_id=None), pair

    def create_from_csr(
        self, partition: Partition, csr_pem: str, *, active: bool = False, pending: bool = False
    ) -> DeviceCertificate:
        """Make a certificate for the key of a request, and with its subject (CreateCertificateFromCsr); each call
        makes another one (botocore, D). Raises ``InvalidRequestException`` for a request that can not be one."""
        curves = self._environment.settings.accepted_curves
        public_key, subject = read_request(csr_pem, curves=curves)
        return self._issue(partition, public_key, subject, active=active, pending=pending)

    def auto_register(self, partition: Partition, leaf: x509.Certificate, ca: CACertificate) -> DeviceCertificate:
        """Register a leaf on its first connection (JITR, JITP): PENDING_ACTIVATION, in the CA's mode (§2).

        The caller has found that the account has no record of it and that ``ca`` registers devices; the rules of the
        API (which statuses may be asked for, CA given or not) do not apply. Raises ``CertificateValidationException``
        for keys and signatures that AWS does not take, however they come.
        """
        self._check_algorithms(leaf)
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
        return self.change(partition, certificate, status)

    def delete(self, partition: Partition, certificate_id: str, *, force: bool = False) -> None:
        """Delete a certificate that is neither ACTIVE nor attached; ``force`` detaches policies, not things (§1.4)."""
        certificate = self.get(partition, certificate_id)
        if certificate.status in (CertificateStatus.ACTIVE, CertificateStatus.PENDING_TRANSFER):
            raise certificate_state(
                f"The certificate {certificate_id} is {certificate.status} and can not be deleted; deactivate it first"
            )
        if partition.things_of_principal.get(certificate.arn):
            raise delete_conflict(f"Things are attached to the certificate {certificate_id}; detach them first")
        if partition.policies_of_target.get(certificate.arn) and not force:
            raise delete_conflict(f"Policies are attached to the certificate {certificate_id}; detach them first")
        self.remove(partition, certificate)

    def add(self, partition: Partition, certificate: DeviceCertificate) -> None:
        """Take a record in; nothing is checked."""
        partition.put_certificate(certificate)
        self.index(partition, certificate)
        self._tell(partition, certificate.certificate_id, certificate, None, CertificateChangeKind.REGISTERED)

    def remove(self, partition: Partition, certificate: DeviceCertificate) -> None:
        """Take a record out, with whatever is attached to it; nothing is checked."""
        for policy_name in tuple(partition.policies_of_target.get(certificate.arn, ())):
            partition.detach_policy(policy_name, certificate.arn)
        for thing_name in tuple(partition.things_of_principal.get(certificate.arn, ())):
            partition.detach_principal(thing_name, certificate.arn)
        partition.remove_certificate(certificate)
        self._forget_default(partition, certificate.certificate_id)
        self._tell(partition, certificate.certificate_id, None, certificate.status, CertificateChangeKind.DELETED)

    def change(
        self, partition: Partition, certificate: DeviceCertificate, status: CertificateStatus
    ) -> DeviceCertificate:
        """Put ``certificate`` in the place of the record of the same id, in another status; nothing is checked."""
        previous = partition.certificates[certificate.certificate_id].status
        changed = replace(
            certificate,
            status=status,
            last_modified_date=self._environment.now(),
            customer_version=certificate.customer_version + 1,
        )
        partition.put_certificate(changed)
        self.index(partition, changed)
        self._tell(partition, changed.certificate_id, changed, previous, CertificateChangeKind.STATUS)
        return changed

    def index(self, partition: Partition, certificate: DeviceCertificate) -> None:
        """Bring up to date who answers with this leaf where no server name is sent.

        The target's record of a transfer that is pending does not: the certificate is still the source's.
        """
        offered = certificate.transfer is not None and certificate.transfer.target == partition.account_id
        pending = certificate.status is CertificateStatus.PENDING_TRANSFER
        if certificate.mode is not CertificateMode.DEFAULT or (offered and pending):
            self._forget_default(partition, certificate.certificate_id)
            return
        key = (partition.region, certificate.certificate_id)
        self._default_holders.setdefault(key, {})[partition.account_id] = partition

    def _forget_default(self, partition: Partition, certificate_id: str) -> None:
        key = (partition.region, certificate_id)
        holders = self._default_holders.get(key, {})
        holders.pop(partition.account_id, None)
        if not holders:
            self._default_holders.pop(key, None)

    def _issue(
        self, partition: Partition, public_key: PublicKey, subject: x509.Name, *, active: bool, pending: bool
    ) -> DeviceCertificate:
        """Certificates of the service's own issuer are in DEFAULT mode (botocore, CertificateDescription, D)."""
        status = CertificateStatus.ACTIVE if active else CertificateStatus.INACTIVE
        leaf = self._environment.issuer.issue(public_key, now=self._environment.now(), subject=subject)
        return self._store(
            partition,
            leaf,
            status=CertificateStatus.PENDING_ACTIVATION if pending else status,
            mode=CertificateMode.DEFAULT,
            ca_id=None,
        )

    def _signer(self, partition: Partition, leaf: x509.Certificate, ca_pem: str | None) -> CACertificate:
        if ca_pem is not None:
            ca = partition.cas.get(certificate_id(x509rules.parse(ca_pem, "CA certificate")))
            if ca is None:
                raise self._no_ca("CA certificate is not valid. It is not registered in this account")
            if not x509rules.issued_by(leaf, ca.certificate):
                raise self._no_ca("Certificate is not valid. It is not signed by the CA certificate given")
            return ca
        issuers = self._cas.issuers_of(partition, leaf)
        if not issuers:
            raise self._no_ca(
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

    def _check_algorithms(self, leaf: x509.Certificate) -> None:
        x509rules.check_algorithms(leaf, "Certificate", curves=self._environment.settings.accepted_curves)

    def _no_ca(self, message: str) -> APIError:
        return APIError(self._environment.settings.unregistered_ca_error, message)

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
        self.add(partition, certificate)
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
