"""Fleet provisioning over MQTT: a device that has only a claim gets a certificate of its own and is provisioned. Pure.

    $aws/certificates/create/<format>                              CreateKeysAndCertificate
    $aws/certificates/create-from-csr/<format>                     CreateCertificateFromCsr
    $aws/provisioning-templates/<template>/provision/<format>      RegisterThing
    …/accepted    …/rejected

Formats are ``json`` and ``cbor``. The answer goes to the asking connection alone, though every device subscribes to the
same topics, and only when it has subscribed (developer guide "device provisioning MQTT API", D). Requests, which hold
tokens, go to nobody.

A certificate made so is PENDING_ACTIVATION. The ownership token that comes with it is asked for by RegisterThing and
lives for an hour; a certificate that is not provisioned by then is deleted (D). Any certificate that its policies allow
these topics is a claim.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from devicesim.emulator import cbor, history, provisioning, shadows
from devicesim.emulator.apierrors import APIError
from devicesim.emulator.dataplane import DataPlane
from devicesim.emulator.deviceconnection import DeviceConnection
from devicesim.emulator.history import Kind
from devicesim.emulator.packets import Publish
from devicesim.emulator.recorder import Recorder
from devicesim.emulator.registry import Partition, Registry
from devicesim.emulator.session import Message
from devicesim.emulator.settings import Settings
from devicesim.emulator.state.records import (
    CertificateStatus,
    DeviceCertificate,
    OwnershipToken,
    ProvisioningTemplate,
    TemplateType,
)

_TOPIC: Final = re.compile(
    r"\$aws/(?:certificates/(?P<create>create|create-from-csr)"
    r"|provisioning-templates/(?P<template>[0-9A-Za-z_-]{1,36})/provision)/(?P<format>json|cbor)"
)
_OPERATIONS: Final = {"create": "CreateKeysAndCertificate", "create-from-csr": "CreateCertificateFromCsr"}
_REGISTER: Final = "RegisterThing"
_STATUS: Final[Mapping[str, int]] = {
    "UnauthorizedException": 403,
    "ResourceNotFoundException": 404,
    "ConflictingResourceUpdateException": 409,
    "ThrottlingException": 429,
    "ServiceUnavailableException": 503,
}
"""Of exceptions that are not 400; 403, 404 and 429 are those that amazon-freertos' library knows (S)."""


class RejectedError(Exception):
    """What the rejected document says."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.told = False
        """Whether the history has it already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """One request of one client."""

    connection: DeviceConnection
    partition: Partition
    operation: str
    template_name: str | None
    document: Mapping[str, Any]
    now: float

    @property
    def principal(self) -> str:
        """Certificate id of the claim."""
        return self.connection.presented.certificate_id or ""


class Claims:
    """One for the whole emulator; takes its topics from the data plane."""

    def __init__(self, registry: Registry, plane: DataPlane, *, settings: Settings, recorder: Recorder) -> None:
        self._registry = registry
        self._plane = plane
        self._settings = settings
        self._recorder = recorder
        plane.reserved.append(self._published)
        registry.on_adopt.append(self.adopt)

    def adopt(self, partition: Partition) -> None:
        """Take in an account as it was kept: its tokens go on expiring."""
        left = self._plane.clock.now() - self._registry.environment.now()
        for token, held in partition.ownership_tokens.items():
            self._plane.timers.schedule(left + held.expires, partial(self._expire, partition, token))

    def _published(self, connection: DeviceConnection, packet: Publish, now: float) -> bool:
        found = _TOPIC.fullmatch(packet.topic)
        if found is None:
            return False
        assert connection.partition is not None  # it publishes, so it was admitted
        write = _to_json if found["format"] == "json" else cbor.encode
        operation = _OPERATIONS.get(found["create"], _REGISTER)
        try:
            asked = _Asked(
                connection=connection,
                partition=connection.partition,
                operation=operation,
                template_name=found["template"],
                document=_read(packet.payload, found["format"]),
                now=now,
            )
            verdict, answer = "accepted", self._serve(asked)
        except RejectedError as refusal:
            verdict = "rejected"
            answer = {"statusCode": refusal.status, "errorCode": refusal.code, "errorMessage": refusal.message}
            if not refusal.told:
                self._note(connection, history.PROVISIONING_FAILED, f"{operation}: {refusal.message}", refusal.code)
        message = Message(topic=f"{packet.topic}/{verdict}", payload=write(answer), qos=1)
        self._plane.publish_to(connection.partition, connection.client_id, message, now)
        return True

    def _serve(self, asked: _Asked) -> Mapping[str, object]:
        partition = asked.partition
        try:
            self._plane.guard.call(partition, "iot", asked.operation)
            if asked.operation == _REGISTER:
                return self._register_thing(asked)
            if asked.operation == "CreateKeysAndCertificate":
                certificate, keys = self._registry.certificates.create_keys(partition, pending=True)
                secret = {"privateKey": keys.private}
            else:
                request = _text(asked.document, "certificateSigningRequest")
                certificate = self._registry.certificates.create_from_csr(partition, request, pending=True)
                secret = {}
        except APIError as error:
            raise _refusal(error.code, error.message) from None
        self._note(
            asked.connection, history.CERTIFICATE_CREATED, f"{asked.operation} made {certificate.certificate_id}"
        )
        return {
            "certificateId": certificate.certificate_id,
            "certificatePem": certificate.pem,
            **secret,
            "certificateOwnershipToken": self._new_token(asked, certificate),
        }

    # --- ownership tokens ---

    def _new_token(self, asked: _Asked, certificate: DeviceCertificate) -> str:
        environment = self._registry.environment
        token = environment.hex(64)
        seconds = self._settings.ownership_token_seconds
        asked.partition.ownership_tokens[token] = OwnershipToken(
            certificate_id=certificate.certificate_id,
            principal=asked.principal,
            expires=environment.now() + seconds,
        )
        self._plane.timers.schedule(asked.now + seconds, partial(self._expire, asked.partition, token))
        return token

    def _expire(self, partition: Partition, token: str, _now: float) -> None:
        """The token's time is over, and with it that of a certificate which nothing has become of (D)."""
        held = partition.ownership_tokens.pop(token, None)
        if held is None or not self._registry.holds(partition):
            return
        certificate = partition.certificates.get(held.certificate_id)
        if certificate is None or certificate.status is not CertificateStatus.PENDING_ACTIVATION:
            return
        if not partition.policies_of_target.get(certificate.arn) and not partition.things_of_principal.get(
            certificate.arn
        ):
            self._registry.certificates.delete(partition, held.certificate_id)

    def _owned(self, asked: _Asked) -> tuple[str, OwnershipToken]:
        """The token of a RegisterThing request, and what it stands for."""
        token = _as_text(asked.document.get("certificateOwnershipToken"))
        if not token:
            # code and text: aws-iot-device-sdk-js-v2 #69, M
            raise _bad_token("Certificate ownership token cannot be empty.")
        held = asked.partition.ownership_tokens.get(token) if isinstance(token, str) else None
        if not isinstance(token, str) or held is None or held.expires <= self._registry.environment.now():
            raise _bad_token("Certificate ownership token is not valid or has expired.")
        if self._settings.ownership_token_bound and held.principal != asked.principal:
            raise _bad_token("Certificate ownership token was given to another certificate.")
        return token, held

    # --- RegisterThing ---

    def _register_thing(self, asked: _Asked) -> Mapping[str, object]:
        token, held = self._owned(asked)
        template = self._template(asked)
        given = asked.document.get("parameters") or {}
        parameters = {name: _as_text(each) for name, each in given.items()} if isinstance(given, Mapping) else None
        if parameters is None or not all(isinstance(each, str) for each in parameters.values()):
            raise RejectedError(400, "InvalidParameters", "parameters must be an object of strings.")
        outcome = provisioning.register_thing(
            self._registry, asked.partition, template.body, parameters, certificate_id=held.certificate_id
        )
        self._recorder.provisioning(
            self._registry.environment,
            asked.partition,
            template,
            outcome,
            certificate_id=held.certificate_id,
            client_id=asked.connection.client_id,
        )
        if not outcome.succeeded:
            refusal = _refusal(outcome.error or "InternalFailureException", outcome.detail)
            refusal.told = True
            raise refusal
        if not self._settings.ownership_token_reusable:
            del asked.partition.ownership_tokens[token]
        answer: dict[str, object] = {"deviceConfiguration": dict(outcome.device_configuration)}
        if outcome.thing_name is not None:
            answer["thingName"] = outcome.thing_name
        return answer

    def _template(self, asked: _Asked) -> ProvisioningTemplate:
        name = asked.template_name
        assert name is not None
        claim = asked.partition.claims.get(asked.principal)
        if claim is not None and claim.template_name != name:
            raise RejectedError(
                403, "AccessDenied", f"The provisioning claim is for the template {claim.template_name}."
            )
        template = asked.partition.templates.get(name)
        if template is None:
            raise RejectedError(404, "ResourceNotFound", f"Provisioning template {name} not found.")
        if template.type is not TemplateType.FLEET_PROVISIONING:
            raise RejectedError(400, "InvalidRequest", f"Provisioning template {name} is of type {template.type}.")
        if not template.enabled:
            raise RejectedError(400, "InvalidRequest", f"Provisioning template {name} is not enabled.")
        if template.pre_provisioning_hook is not None and self._settings.provisioning_hook == "refuse":
            hook = template.pre_provisioning_hook.get("targetArn")
            raise RejectedError(
                403, "AccessDenied", f"devicesim cannot call the pre-provisioning hook {hook} of the template {name}."
            )
        return template

    def _note(self, connection: DeviceConnection, verdict: str, detail: str, reason: str | None = None) -> None:
        self._recorder.note(
            connection.presented,
            kind=Kind.PROVISIONING,
            verdict=verdict,
            partition=connection.partition,
            connection=connection,
            reason=reason,
            detail=detail,
        )


def _read(payload: bytes, form: str) -> Mapping[str, Any]:
    """The request; an empty message is an empty one."""
    if not payload:
        return {}
    try:
        document = shadows.read_json(payload) if form == "json" else cbor.decode(payload)
    except (APIError, cbor.CBORError):
        raise RejectedError(400, "InvalidPayload", f"The payload is not {form.upper()}.") from None
    if not isinstance(document, dict):
        raise RejectedError(400, "InvalidPayload", "The payload is not an object.")
    return document


def _text(document: Mapping[str, Any], name: str) -> str:
    value = _as_text(document.get(name))
    if not isinstance(value, str) or not value:
        raise RejectedError(400, "InvalidRequest", f"{name} is required.")
    return value


def _as_text(value: Any) -> Any:
    """Some CBOR encoders send text as bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _to_json(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _bad_token(message: str) -> RejectedError:
    return RejectedError(400, "InvalidCertificateOwnershipToken", message)


def _refusal(exception: str, message: str) -> RejectedError:
    """An exception of the API, by the shorter name that error codes over MQTT have (I)."""
    return RejectedError(_STATUS.get(exception, 400), exception.removesuffix("Exception"), message)
