"""Certificates that go from one account to another in the same Region (botocore, D; what it leaves open is a setting).

While a transfer is pending, the source has its record and the target one of its own, both PENDING_TRANSFER: the target
finds it with ListCertificates. Accepting removes the source's, rejecting or cancelling the target's.
"""

from collections.abc import Callable
from dataclasses import replace

from devicesim.emulator.apierrors import (
    APIError,
    certificate_state,
    invalid_request,
    resource_not_found,
    transfer_already_completed,
    transfer_conflict,
)
from devicesim.emulator.state.certificates import Certificates
from devicesim.emulator.state.environment import Environment
from devicesim.emulator.state.partition import Partition
from devicesim.emulator.state.records import CertificateStatus, DeviceCertificate, Transfer


class Transfers:
    """The transfers between accounts."""

    def __init__(
        self, environment: Environment, certificates: Certificates, partition_of: Callable[[str, str], Partition]
    ) -> None:
        """``partition_of(account_id, region)`` is where an account's records in a Region are."""
        self._environment = environment
        self._certificates = certificates
        self._partition_of = partition_of

    def start(
        self, source: Partition, certificate_id: str, target_account: str, message: str | None = None
    ) -> DeviceCertificate:
        """Offer a certificate to another account (TransferCertificate). Answers the target's record."""
        settings = self._environment.settings
        certificate = self._certificates.get(source, certificate_id)
        if target_account == source.account_id:
            raise invalid_request("The certificate can not be transferred to the account that owns it")
        if certificate_id in source.claims:
            raise invalid_request("The certificate of a provisioning claim can not be transferred")
        if certificate.status in (CertificateStatus.ACTIVE, CertificateStatus.PENDING_TRANSFER):
            raise certificate_state(f"The certificate {certificate_id} is {certificate.status}")
        if certificate.status is CertificateStatus.REVOKED and settings.revoked_is_final:
            raise certificate_state(f"The certificate {certificate_id} is REVOKED and can not be transferred")
        if source.policies_of_target.get(certificate.arn):
            raise transfer_conflict(
                "You can't transfer the certificate because authorization policies are still attached"
            )
        if source.things_of_principal.get(certificate.arn) and not settings.transfer_with_things:
            raise transfer_conflict("You can't transfer the certificate because things are still attached")
        target = self._partition_of(target_account, source.region)
        if certificate_id in target.certificates:
            raise transfer_conflict(f"The certificate {certificate_id} is already registered in the target account")
        transfer = Transfer(
            source=source.account_id,
            target=target_account,
            message=message,
            transfer_date=self._environment.now(),
        )
        offered = replace(
            certificate,
            arn=target.certificate_arn(certificate_id),
            sequence=target.next_sequence(),
            status=CertificateStatus.PENDING_TRANSFER,
            transfer=transfer,
            previous_owner=None,
        )
        self._certificates.change(source, replace(certificate, transfer=transfer), CertificateStatus.PENDING_TRANSFER)
        self._certificates.add(target, offered)
        return offered

    def accept(self, target: Partition, certificate_id: str, *, active: bool = False) -> DeviceCertificate:
        """Take over what was offered; the source's record goes, with what was attached to it."""
        offered = self._offered(target, certificate_id)
        transfer = _transfer(offered)
        source = self._partition_of(transfer.source, target.region)
        self._certificates.remove(source, source.certificates[certificate_id])
        source.transferred_certificates[certificate_id] = target.account_id
        accepted = replace(
            offered,
            previous_owner=transfer.source,
            transfer=replace(transfer, accept_date=self._environment.now()),
        )
        target.transferred_certificates.pop(certificate_id, None)
        status = CertificateStatus.ACTIVE if active else CertificateStatus.INACTIVE
        return self._certificates.change(target, accepted, status)

    def reject(self, target: Partition, certificate_id: str, reason: str | None = None) -> None:
        """Send it back: INACTIVE in the source's account, which is told the reason."""
        transfer = _transfer(self._offered(target, certificate_id))
        self._give_back(
            target, certificate_id, replace(transfer, reject_date=self._environment.now(), reject_reason=reason)
        )

    def cancel(self, source: Partition, certificate_id: str) -> None:
        """Take the offer back, which only the source can, and only while it is pending."""
        if certificate_id in source.transferred_certificates and certificate_id not in source.certificates:
            raise _completed()
        certificate = self._certificates.get(source, certificate_id)
        transfer = certificate.transfer
        if certificate.status is not CertificateStatus.PENDING_TRANSFER or transfer is None:
            raise self._not_pending(certificate)
        if transfer.source != source.account_id:
            raise invalid_request("Only the account that transfers the certificate can cancel the transfer")
        self._give_back(self._partition_of(transfer.target, source.region), certificate_id, transfer)

    def outgoing(self, source: Partition) -> list[DeviceCertificate]:
        """What the account has offered and nobody has accepted yet, oldest record first."""
        return [
            certificate
            for certificate in source.certificates.values()
            if certificate.status is CertificateStatus.PENDING_TRANSFER
            and certificate.transfer is not None
            and certificate.transfer.source == source.account_id
        ]

    def _give_back(self, target: Partition, certificate_id: str, transfer: Transfer) -> None:
        source = self._partition_of(transfer.source, target.region)
        self._certificates.remove(target, target.certificates[certificate_id])
        returned = replace(source.certificates[certificate_id], transfer=transfer)
        self._certificates.change(source, returned, CertificateStatus.INACTIVE)

    def _offered(self, target: Partition, certificate_id: str) -> DeviceCertificate:
        """The target's record of a pending transfer."""
        if certificate_id in target.transferred_certificates and certificate_id not in target.certificates:
            raise _completed()
        certificate = self._certificates.get(target, certificate_id)
        if certificate.status is not CertificateStatus.PENDING_TRANSFER or certificate.transfer is None:
            raise self._not_pending(certificate)
        if certificate.transfer.target != target.account_id:
            raise resource_not_found(f"The certificate {certificate_id} was not transferred to this account")
        return certificate

    def _not_pending(self, certificate: DeviceCertificate) -> APIError:
        if certificate.transfer is not None:
            return _completed()
        code = self._environment.settings.transfer_not_pending_error
        return APIError(code, f"The certificate {certificate.certificate_id} is not in transfer")


def _transfer(certificate: DeviceCertificate) -> Transfer:
    assert certificate.transfer is not None
    return certificate.transfer


def _completed() -> APIError:
    """The model's own words for the exception (D)."""
    return transfer_already_completed(
        "You can't revert the certificate transfer because the transfer is already complete"
    )
