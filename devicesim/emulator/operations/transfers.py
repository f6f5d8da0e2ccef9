"""Certificates between accounts."""

from collections.abc import Mapping
from typing import Any

from devicesim.emulator.operations.call import Call, Handler, marker_page


def transfer_certificate(call: Call) -> Mapping[str, Any]:
    offered = call.registry.transfers.start(
        call.partition, call["certificateId"], call["targetAwsAccount"], call.get("transferMessage")
    )
    return {"transferredCertificateArn": offered.arn}


def accept_certificate_transfer(call: Call) -> Mapping[str, Any]:
    call.registry.transfers.accept(call.partition, call["certificateId"], active=bool(call.get("setAsActive")))
    return {}


def reject_certificate_transfer(call: Call) -> Mapping[str, Any]:
    call.registry.transfers.reject(call.partition, call["certificateId"], call.get("rejectReason"))
    return {}


def cancel_certificate_transfer(call: Call) -> Mapping[str, Any]:
    call.registry.transfers.cancel(call.partition, call["certificateId"])
    return {}


def list_outgoing_certificates(call: Call) -> Mapping[str, Any]:
    page, marker = marker_page(
        call,
        call.registry.transfers.outgoing(call.partition),
        lambda certificate: certificate.sequence,
        ascending=bool(call.get("ascendingOrder")),
    )
    return {
        "outgoingCertificates": [
            {
                "certificateArn": certificate.arn,
                "certificateId": certificate.certificate_id,
                "transferredTo": certificate.transfer.target,
                "transferDate": certificate.transfer.transfer_date,
                "transferMessage": certificate.transfer.message,
                "creationDate": certificate.creation_date,
            }
            for certificate in page
            if certificate.transfer is not None
        ],
        "nextMarker": marker,
    }


HANDLERS: Mapping[str, Handler] = {
    "TransferCertificate": transfer_certificate,
    "AcceptCertificateTransfer": accept_certificate_transfer,
    "RejectCertificateTransfer": reject_certificate_transfer,
    "CancelCertificateTransfer": cancel_certificate_transfer,
    "ListOutgoingCertificates": list_outgoing_certificates,
}
