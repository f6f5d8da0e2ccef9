"""Device certificates."""

from collections.abc import Mapping, Sequence
from typing import Any

from devicesim.emulator.operations.call import Call, Handler, marker_page
from devicesim.emulator.state.records import CertificateStatus, DeviceCertificate


def create_keys_and_certificate(call: Call) -> Mapping[str, Any]:
    certificate, keys = call.registry.certificates.create_keys(call.partition, active=bool(call.get("setAsActive")))
    return {**_created(certificate), "keyPair": {"PublicKey": keys.public, "PrivateKey": keys.private}}


def create_certificate_from_csr(call: Call) -> Mapping[str, Any]:
    certificate = call.registry.certificates.create_from_csr(
        call.partition, call["certificateSigningRequest"], active=bool(call.get("setAsActive"))
    )
    return _created(certificate)


def register_certificate(call: Call) -> Mapping[str, Any]:
    certificate = call.registry.certificates.register(
        call.partition,
        call["certificatePem"],
        ca_pem=call.get("caCertificatePem"),
        status=_status(call, set_as_active=bool(call.get("setAsActive"))),
    )
    return {"certificateArn": certificate.arn, "certificateId": certificate.certificate_id}


def register_certificate_without_ca(call: Call) -> Mapping[str, Any]:
    certificate = call.registry.certificates.register_without_ca(
        call.partition, call["certificatePem"], status=_status(call, set_as_active=False)
    )
    return {"certificateArn": certificate.arn, "certificateId": certificate.certificate_id}


def describe_certificate(call: Call) -> Mapping[str, Any]:
    certificate = call.registry.certificates.get(call.partition, call["certificateId"])
    return {
        "certificateDescription": {
            "certificateArn": certificate.arn,
            "certificateId": certificate.certificate_id,
            "caCertificateId": certificate.ca_certificate_id,
            "status": certificate.status,
            "certificatePem": certificate.pem,
            "ownedBy": _owner(call.partition.account_id, certificate),
            "previousOwnedBy": certificate.previous_owner,
            "creationDate": certificate.creation_date,
            "lastModifiedDate": certificate.last_modified_date,
            "customerVersion": certificate.customer_version,
            "transferData": _transfer_data(certificate),
            "generationId": certificate.generation_id,
            "validity": {"notBefore": certificate.not_before, "notAfter": certificate.not_after},
            "certificateMode": certificate.mode,
        }
    }


def list_certificates(call: Call) -> Mapping[str, Any]:
    """Without temporary claims, which are in no list (aws-samples, fleet provisioning workshop, S)."""
    certificates, claims = list(call.partition.certificates.values()), call.partition.claims
    if claims:
        certificates = [each for each in certificates if each.certificate_id not in claims]
    return _listed(call, certificates)


def list_certificates_by_ca(call: Call) -> Mapping[str, Any]:
    """A CA that does not exist has no certificates: the model gives this operation no ResourceNotFoundException."""
    certificates = call.partition.certificates
    ids = call.partition.certificates_by_ca.get(call["caCertificateId"], ())
    return _listed(call, [certificates[certificate_id] for certificate_id in ids])


def update_certificate(call: Call) -> Mapping[str, Any]:
    call.registry.certificates.update(call.partition, call["certificateId"], CertificateStatus(call["newStatus"]))
    return {}


def delete_certificate(call: Call) -> Mapping[str, Any]:
    call.registry.certificates.delete(call.partition, call["certificateId"], force=bool(call.get("forceDelete")))
    return {}


def _created(certificate: DeviceCertificate) -> Mapping[str, Any]:
    return {
        "certificateArn": certificate.arn,
        "certificateId": certificate.certificate_id,
        "certificatePem": certificate.pem,
    }


def _owner(account_id: str, certificate: DeviceCertificate) -> str:
    """Until a transfer is accepted, the source's account."""
    if certificate.status is CertificateStatus.PENDING_TRANSFER and certificate.transfer is not None:
        return certificate.transfer.source
    return account_id


def _transfer_data(certificate: DeviceCertificate) -> Mapping[str, Any]:
    """An empty object where there was no transfer (CLI reference, describe-certificate, D)."""
    transfer = certificate.transfer
    if transfer is None:
        return {}
    return {
        "transferMessage": transfer.message,
        "rejectReason": transfer.reject_reason,
        "transferDate": transfer.transfer_date,
        "acceptDate": transfer.accept_date,
        "rejectDate": transfer.reject_date,
    }


def _status(call: Call, *, set_as_active: bool) -> CertificateStatus:
    """``status``, where given; else the older ``setAsActive``; else INACTIVE (aws-iot-behaviour.md §1.4)."""
    given = call.get("status")
    if given is not None:
        return CertificateStatus(given)
    return CertificateStatus.ACTIVE if set_as_active else CertificateStatus.INACTIVE


def _sequence(certificate: DeviceCertificate) -> int:
    return certificate.sequence


def _listed(call: Call, certificates: Sequence[DeviceCertificate]) -> Mapping[str, Any]:
    page, marker = marker_page(call, certificates, _sequence, ascending=bool(call.get("ascendingOrder")))
    return {
        "certificates": [
            {
                "certificateArn": certificate.arn,
                "certificateId": certificate.certificate_id,
                "status": certificate.status,
                "certificateMode": certificate.mode,
                "creationDate": certificate.creation_date,
            }
            for certificate in page
        ],
        "nextMarker": marker,
    }


HANDLERS: Mapping[str, Handler] = {
    "CreateKeysAndCertificate": create_keys_and_certificate,
    "CreateCertificateFromCsr": create_certificate_from_csr,
    "RegisterCertificate": register_certificate,
    "RegisterCertificateWithoutCA": register_certificate_without_ca,
    "DescribeCertificate": describe_certificate,
    "ListCertificates": list_certificates,
    "ListCertificatesByCA": list_certificates_by_ca,
    "UpdateCertificate": update_certificate,
    "DeleteCertificate": delete_certificate,
}
