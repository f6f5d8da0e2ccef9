"""Domain configurations."""

from collections.abc import Mapping
from typing import Any

from devicesim.emulator.operations.call import Call, Handler, marker_page
from devicesim.emulator.state.records import DomainConfiguration, DomainStatus

_PLAIN = {
    "authenticationType": "authentication_type",
    "applicationProtocol": "application_protocol",
    "validationCertificateArn": "validation_certificate_arn",
}
_NESTED = {
    ("authorizerConfig", "defaultAuthorizerName"): "authorizer_name",
    ("authorizerConfig", "allowAuthorizerOverride"): "allow_authorizer_override",
    ("tlsConfig", "securityPolicy"): "security_policy",
    ("serverCertificateConfig", "enableOCSPCheck"): "ocsp_check",
    ("serverCertificateConfig", "ocspLambdaArn"): "ocsp_lambda_arn",
    ("serverCertificateConfig", "ocspAuthorizedResponderArn"): "ocsp_responder_arn",
    ("clientCertificateConfig", "clientCertificateCallbackArn"): "client_certificate_callback_arn",
}
"""Where the fields of a configuration stand in a call and in the answer."""


def create_domain_configuration(call: Call) -> Mapping[str, Any]:
    configuration = call.registry.domains.create(
        call.partition,
        call["domainConfigurationName"],
        domain_name=call.get("domainName"),
        service_type=call.get("serviceType") or "DATA",
        server_certificate_arns=call.get("serverCertificateArns") or (),
        options=_options(call),
        tags=call.tags,
    )
    return _named(configuration)


def describe_domain_configuration(call: Call) -> Mapping[str, Any]:
    configuration = call.registry.domains.get(call.partition, call["domainConfigurationName"])
    answer: dict[str, Any] = {
        **_named(configuration),
        "domainName": configuration.domain_name,
        "serverCertificates": [
            {"serverCertificateArn": arn, "serverCertificateStatus": "VALID"}
            for arn in configuration.server_certificate_arns
        ],
        "domainConfigurationStatus": configuration.status,
        "serviceType": configuration.service_type,
        "domainType": configuration.type,
        "lastStatusChangeDate": configuration.last_status_change_date,
        "authenticationType": configuration.authentication_type,
        "applicationProtocol": configuration.application_protocol,
    }
    for (member, inner), name in _NESTED.items():
        value = getattr(configuration, name)
        if value is not None:
            answer.setdefault(member, {})[inner] = value
    return answer


def update_domain_configuration(call: Call) -> Mapping[str, Any]:
    status = call.get("domainConfigurationStatus")
    configuration = call.registry.domains.update(
        call.partition,
        call["domainConfigurationName"],
        status=DomainStatus(status) if status else None,
        remove_authorizer=bool(call.get("removeAuthorizerConfig")),
        options=_options(call),
    )
    return _named(configuration)


def delete_domain_configuration(call: Call) -> Mapping[str, Any]:
    call.registry.domains.delete(call.partition, call["domainConfigurationName"])
    return {}


def list_domain_configurations(call: Call) -> Mapping[str, Any]:
    service_type = call.get("serviceType")
    every = [each for each in call.registry.domains.every(call.partition) if service_type in (None, each.service_type)]
    page, marker = marker_page(call, every, lambda configuration: configuration.name)
    return {
        "domainConfigurations": [{**_named(each), "serviceType": each.service_type} for each in page],
        "nextMarker": marker,
    }


def _named(configuration: DomainConfiguration) -> dict[str, Any]:
    return {
        "domainConfigurationName": configuration.name,
        "domainConfigurationArn": configuration.arn,
    }


def _options(call: Call) -> dict[str, object]:
    """What the call says of a configuration, by the record's field names."""
    options = {name: call.get(member) for member, name in _PLAIN.items()}
    options.update({name: (call.get(member) or {}).get(inner) for (member, inner), name in _NESTED.items()})
    return {name: value for name, value in options.items() if value is not None}


HANDLERS: Mapping[str, Handler] = {
    "CreateDomainConfiguration": create_domain_configuration,
    "DescribeDomainConfiguration": describe_domain_configuration,
    "UpdateDomainConfiguration": update_domain_configuration,
    "DeleteDomainConfiguration": delete_domain_configuration,
    "ListDomainConfigurations": list_domain_configurations,
}
