"""What one account's control plane says about a device: read-only, and as far as the credentials allow.

An :class:`Inspector` asks what concerns every device (endpoint, CAs, CloudTrail) once, and the rest for each. What is
refused or cannot be had is told in :attr:`AccountEvidence.not_asked`, and never ends a diagnosis: the credentials of
whoever looks into a production account seldom allow everything.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import trio
from cryptography import x509
from cryptography.x509.oid import NameOID

from devicesim.cloud.account import AccountClient
from devicesim.cloud.asking import Asker, answered_in_time, reason
from devicesim.cloud.clock import endpoint_and_clock
from devicesim.cloud.connectpolicy import why_denied
from devicesim.cloud.inspecttemplate import template_evidence
from devicesim.cloud.inspecttrail import Trail, Window, log_events
from devicesim.cloud.leaf import signed_by
from devicesim.diagnosis.evidence import AccountEvidence, CAEvidence, LogEvent, ProvisioningEvent, RecordEvidence
from devicesim.errors import KeyMaterialError, TargetError
from devicesim.pki.identity import load_certificates

MOST_CAS = 50
"""CA certificates of an account that are looked at: AWS describes ten a second, and a listing has no subjects."""
CLOCK_SECONDS = 1.0
"""A clock that is told in whole seconds says nothing of less."""
PAGE = 250
"""The most that AWS IoT's listings take for a page (botocore, D)."""
MOST_PAGES = 20
_OF_THE_DEVICE = ("iot:certificate.", "iot:clientid", "iot:certificateid")
"""Policy variables that TestAuthorization misses only where the device itself has no value for them."""
_OF_ITS_THING = "iot:connection.thing."
"""Those that have a value only where the client id is the name of a thing of the certificate (§5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A device, as far as an account can be asked about it."""

    certificate_id: str
    client_id: str
    leaf: x509.Certificate | None = None
    """``None``: not at hand; then :attr:`issuer` says who signed it."""
    issuer: x509.Certificate | None = None
    """The fleet's CA, under which its certificates are minted."""
    server_name: str | None = None
    tries: tuple[Window, ...] = ()
    """When it tried to connect, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _CA:
    certificate: x509.Certificate
    description: Mapping[str, Any]
    config: Mapping[str, Any]
    """registrationConfig; empty for JITR."""


class Inspector:
    """Asks one account about the devices of one diagnosis."""

    def __init__(
        self,
        client: AccountClient,
        *,
        ca_id: str | None,
        since: float,
        until: float,
        clock: Callable[[], float],
    ) -> None:
        """``ca_id`` is that of the fleet's CA; the devices tried to connect from ``since`` to ``until``, in seconds
        since the Unix epoch, as ``clock`` tells."""
        self._client = client
        self._ca_id = ca_id
        self._span = since, until
        self._clock = clock
        self._asker = Asker(client)
        self._trail: Trail | None = None
        self._lock = trio.Lock()
        self._reached: bool | None = None
        self._endpoint: str | None = None
        self._clock_offset: float | None = None
        self._listed: list[str] | None = None
        """Ids of the account's CA certificates; ``None``: could not be asked."""

    async def leaf(self, certificate_id: str) -> x509.Certificate | None:
        """The certificate itself, where the account has it."""
        if not await self._reach():
            return None
        answer = await self._asker.another().ask("describe_certificate", certificateId=certificate_id)
        found = (answer.found or {}).get("certificateDescription", {}).get("certificatePem")
        return None if found is None else _parsed(found)

    async def inspect(self, question: Question) -> AccountEvidence:
        """All that the account tells of the device."""
        reached = await self._reach()
        asker = self._asker.another()
        for line in self._asker.refused:
            asker.refuse(line)
        access = self._client.access
        evidence = AccountEvidence(
            name=access.name,
            account_id=access.account_id,
            region=access.region,
            endpoint=self._endpoint,
            cas=None,
            record_asked=False,
            record=None,
            clock_offset=self._clock_offset,
            not_asked=tuple(asker.refused),
        )
        if not reached:
            return evidence
        answer = await asker.ask("describe_certificate", certificateId=question.certificate_id)
        record = None
        if answer.found is not None:
            record = await self._record(asker, answer.found["certificateDescription"], question)
        evidence = replace(
            evidence,
            cas=await self._cas(asker, question, record),
            record_asked=answer.refusal is None,
            record=record,
            provisioning=await self._provisioning(asker, question),
            logs=await self._logs(asker, question),
        )
        return replace(evidence, not_asked=tuple(asker.refused))

    async def _reach(self) -> bool:
        """Whether the account can be asked at all; its endpoint, clock and CAs on the first call."""
        async with self._lock:
            if self._reached is None:
                self._reached = await self._ask_first()
        return self._reached

    async def _ask_first(self) -> bool:
        try:
            with answered_in_time("get_caller_identity", self._client):
                await self._client.check_identity()
        except TargetError as exc:  # nobody answers, or whoever does would answer for another account
            self._asker.refuse(f"nothing could be asked: {reason(exc)}")
            return False
        try:
            with answered_in_time("describe_endpoint", self._client):
                self._endpoint, self._clock_offset = await endpoint_and_clock(self._client, self._clock)
        except TargetError as exc:
            self._asker.refuse(reason(exc))
        since, until = self._span
        self._trail = Trail(since=since - self._ahead, until=until - self._ahead, clock=self._their_clock)
        listed = await self._asker.ask_pages(
            "list_ca_certificates", "certificates", "nextMarker", most=MOST_PAGES, pageSize=PAGE
        )
        self._listed = None if listed is None else [str(each["certificateId"]) for each in listed]
        return True

    # --- times ---

    @property
    def _ahead(self) -> float:
        """Seconds by which this machine's clock is ahead of the control plane's, as far as that is more than noise."""
        offset = self._clock_offset or 0.0
        return offset if abs(offset) > CLOCK_SECONDS else 0.0

    def _their_clock(self) -> float:
        return self._clock() - self._ahead

    def _here(self, when: datetime | None) -> float | None:
        """A time of the control plane's, by the clock of this machine."""
        return None if when is None else when.timestamp() + self._ahead

    def _their_tries(self, question: Question) -> tuple[Window, ...]:
        return tuple((begin - self._ahead, end - self._ahead) for begin, end in question.tries)

    # --- what AWS has written down ---

    async def _provisioning(self, asker: Asker, question: Question) -> tuple[ProvisioningEvent, ...] | None:
        assert self._trail is not None  # _ask_first has made it
        name = None if question.leaf is None else _common_name(question.leaf)
        found = await self._trail.about(asker, question.certificate_id, name, self._their_tries(question))
        return None if found is None else tuple(replace(each, time=each.time + self._ahead) for each in found)

    async def _logs(self, asker: Asker, question: Question) -> tuple[LogEvent, ...] | None:
        found = await log_events(
            asker, question.certificate_id, question.client_id, question.server_name, self._their_tries(question)
        )
        return None if found is None else tuple(replace(each, time=each.time + self._ahead) for each in found)

    # --- CAs ---

    async def _cas(
        self, asker: Asker, question: Question, record: RecordEvidence | None
    ) -> tuple[CAEvidence, ...] | None:
        """Those that may be the issuer; the likeliest are described first, for their number is bounded."""
        own = self._ca_id, None if record is None else record.ca_certificate_id
        wanted = dict.fromkeys(each for each in (*own, *(self._listed or ())) if each is not None)
        if self._listed is None and not wanted:
            return None
        if question.leaf is None and question.issuer is None:
            asker.refuse("the device's certificate is not at hand: which CA signed it cannot be told")
            return None
        if len(wanted) > MOST_CAS:
            asker.refuse(f"describe_ca_certificate: {len(wanted) - MOST_CAS} more CA certificates were not looked at")
        found = []
        for each in list(wanted)[:MOST_CAS]:
            ca = await self._described(asker, each)
            evidence = None if ca is None else await self._ca(asker, each, ca, question, record)
            if evidence is not None:
                found.append(evidence)
        return tuple(found)

    async def _described(self, asker: Asker, ca_id: str) -> _CA | None:
        answer = await asker.ask("describe_ca_certificate", certificateId=ca_id)
        if answer.found is None:
            return None
        description = answer.found["certificateDescription"]
        certificate = _parsed(description["certificatePem"])
        if certificate is None:
            asker.refuse(f"describe_ca_certificate: the certificate of CA {ca_id} cannot be read")
            return None
        return _CA(
            certificate=certificate, description=description, config=answer.found.get("registrationConfig") or {}
        )

    async def _ca(
        self, asker: Asker, ca_id: str, ca: _CA, question: Question, record: RecordEvidence | None
    ) -> CAEvidence | None:
        """``None``: it has nothing to do with the device's certificate."""
        leaf, issuer = question.leaf, question.issuer
        if leaf is not None:
            same, signed = ca.certificate.subject == leaf.issuer, signed_by(leaf, ca.certificate)
        else:
            assert issuer is not None  # _cas has seen to it
            same = ca.certificate.subject == issuer.subject
            signed = ca.certificate.public_key() == issuer.public_key()
        if not same and not signed:
            return None
        run = record is None or record.status == "PENDING_ACTIVATION"
        return CAEvidence(
            certificate_id=ca_id,
            subject=ca.certificate.subject.rfc4514_string(),
            active=ca.description.get("status") == "ACTIVE",
            auto_registration=ca.description.get("autoRegistrationStatus") == "ENABLE",
            mode=str(ca.description.get("certificateMode", "DEFAULT")),
            same_subject=same,
            signed_leaf=signed,
            template=await template_evidence(asker, ca.config, leaf, question.certificate_id, run=run),
        )

    # --- the certificate's record ---

    async def _record(self, asker: Asker, description: Mapping[str, Any], question: Question) -> RecordEvidence:
        arn = self._client.access.arn(f"cert/{question.certificate_id}")
        listed = await asker.ask_pages(
            "list_principal_things", "things", "nextToken", most=MOST_PAGES, principal=arn, maxResults=PAGE
        )
        things = None if listed is None else tuple(listed)
        documents = await self._policies(asker, arn, question.client_id, things or ())
        allowed, why = await self._may_connect(asker, arn, question.client_id, things or ())
        if allowed is False and not why:
            why = "" if documents is None else why_denied(documents, question.client_id, things or ())
        return RecordEvidence(
            status=str(description["status"]),
            mode=str(description.get("certificateMode", "DEFAULT")),
            ca_certificate_id=description.get("caCertificateId"),
            created=self._here(description.get("creationDate")),
            modified=self._here(description.get("lastModifiedDate")),
            policies=None if documents is None else tuple(documents),
            connect_allowed=allowed,
            connect_reason=why,
            things=things,
        )

    async def _policies(self, asker: Asker, arn: str, client_id: str, things: tuple[str, ...]) -> dict[str, str] | None:
        """Effective policies by name, with their documents (empty where only the names could be asked)."""
        named = {"thingName": client_id} if client_id in things else {}
        answer = await asker.ask("get_effective_policies", principal=arn, **named)
        if answer.found is not None:
            policies = answer.found["effectivePolicies"]
            return {each["policyName"]: each.get("policyDocument", "") for each in policies}
        attached = (await asker.ask("list_attached_policies", target=arn)).found
        return None if attached is None else {each["policyName"]: "" for each in attached["policies"]}

    async def _may_connect(
        self, asker: Asker, arn: str, client_id: str, things: tuple[str, ...]
    ) -> tuple[bool | None, str]:
        """What TestAuthorization says of iot:Connect; ``None`` where it could not be told, and why not."""
        resource = self._client.access.arn(f"client/{client_id}")
        answer = await asker.ask(
            "test_authorization",
            principal=arn,
            clientId=client_id,
            authInfos=[{"actionType": "CONNECT", "resources": [resource]}],
        )
        if answer.found is None:
            return None, ""
        (result,) = answer.found["authResults"]
        # what is missing of a thing that the certificate has is missing to the test only
        known = _OF_THE_DEVICE if client_id in things else (*_OF_THE_DEVICE, _OF_ITS_THING)
        unknown = [each for each in result.get("missingContextValues", ()) if not each.lower().startswith(known)]
        match result["authDecision"]:
            case "ALLOWED":
                return True, ""
            case "EXPLICIT_DENY":
                denying = result["denied"]["explicitDeny"]["policies"]
                return False, f"denied by {', '.join(repr(each['policyName']) for each in denying)}"
            case _ if unknown:
                asker.refuse(f"test_authorization: a policy depends on {', '.join(unknown)}, which only a device has")
                return None, ""
            case _:
                return False, ""


def _parsed(pem: str) -> x509.Certificate | None:
    try:
        return load_certificates(pem.encode(), "the account's certificate")[0]
    except KeyMaterialError:
        return None


def _common_name(leaf: x509.Certificate) -> str | None:
    found = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else None
