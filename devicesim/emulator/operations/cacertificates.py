"""CA certificates and the registration code."""

from collections.abc import Mapping
from typing import Any

from devicesim.emulator.operations.call import Call, Handler, marker_page
from devicesim.emulator.state.records import (
    AutoRegistrationStatus,
    CACertificate,
    CACertificateStatus,
    CertificateMode,
    RegistrationConfig,
)


def get_registration_code(call: Call) -> Mapping[str, Any]:
    return {"registrationCode": call.registry.cas.registration_code(call.partition)}


def delete_registration_code(call: Call) -> Mapping[str, Any]:
    call.registry.cas.delete_registration_code(call.partition)
    return {}


def register_ca_certificate(call: Call) -> Mapping[str, Any]:
    ca = call.registry.cas.register(
        call.partition,
        call["caCertificate"],
        verification_pem=call.get("verificationCertificate"),
        mode=CertificateMode(call.get("certificateMode") or CertificateMode.DEFAULT),
        active=bool(call.get("setAsActive")),
        auto_registration=bool(call.get("allowAutoRegistration")),
        registration_config=_registration_config(call),
        tags=call.tags,
    )
    return {"certificateArn": ca.arn, "certificateId": ca.certificate_id}


def describe_ca_certificate(call: Call) -> Mapping[str, Any]:
    ca = call.registry.cas.get(call.partition, call["certificateId"])
    config = ca.registration_config
    return {
        "certificateDescription": {
            "certificateArn": ca.arn,
            "certificateId": ca.certificate_id,
            "status": ca.status,
            "certificatePem": ca.pem,
            "ownedBy": call.partition.account_id,
            "creationDate": ca.creation_date,
            "autoRegistrationStatus": ca.auto_registration,
            "lastModifiedDate": ca.last_modified_date,
            "customerVersion": ca.customer_version,
            "generationId": ca.generation_id,
            "validity": {"notBefore": ca.not_before, "notAfter": ca.not_after},
            "certificateMode": ca.mode,
        },
        "registrationConfig": config
        and {
            "templateBody": config.template_body,
            "roleArn": config.role_arn,
            "templateName": config.template_name,
        },
    }


def list_ca_certificates(call: Call) -> Mapping[str, Any]:
    cas = list(call.partition.cas.values())
    template = call.get("templateName")
    if template is not None:
        cas = [ca for ca in cas if ca.registration_config and ca.registration_config.template_name == template]
    page, marker = marker_page(call, cas, _sequence, ascending=bool(call.get("ascendingOrder")))
    return {
        "certificates": [
            {
                "certificateArn": ca.arn,
                "certificateId": ca.certificate_id,
                "status": ca.status,
                "creationDate": ca.creation_date,
            }
            for ca in page
        ],
        "nextMarker": marker,
    }


def update_ca_certificate(call: Call) -> Mapping[str, Any]:
    status, auto_registration = call.get("newStatus"), call.get("newAutoRegistrationStatus")
    call.registry.cas.update(
        call.partition,
        call["certificateId"],
        status=CACertificateStatus(status) if status else None,
        auto_registration=AutoRegistrationStatus(auto_registration) if auto_registration else None,
        registration_config=_registration_config(call),
        remove_auto_registration=bool(call.get("removeAutoRegistration")),
    )
    return {}


def delete_ca_certificate(call: Call) -> Mapping[str, Any]:
    call.registry.cas.delete(call.partition, call["certificateId"])
    return {}


def _sequence(ca: CACertificate) -> int:
    return ca.sequence


def _registration_config(call: Call) -> RegistrationConfig | None:
    given = call.get("registrationConfig")
    if not given:
        return None  # absent, or {} as some SDKs send for it
    return RegistrationConfig(
        template_body=given.get("templateBody"),
        role_arn=given.get("roleArn"),
        template_name=given.get("templateName"),
    )


HANDLERS: Mapping[str, Handler] = {
    "GetRegistrationCode": get_registration_code,
    "DeleteRegistrationCode": delete_registration_code,
    "RegisterCACertificate": register_ca_certificate,
    "DescribeCACertificate": describe_ca_certificate,
    "ListCACertificates": list_ca_certificates,
    "UpdateCACertificate": update_ca_certificate,
    "DeleteCACertificate": delete_ca_certificate,
}
