"""Writes the data plane's history: one entry for each thing decided or seen on a connection. Pure."""

from collections.abc import Mapping
from typing import Protocol

from devicesim.emulator import admission, history, trail
from devicesim.emulator.admission import Decision, Presented
from devicesim.emulator.clock import Clock
from devicesim.emulator.history import Entry, History, Kind
from devicesim.emulator.packets import ProtocolVersion
from devicesim.emulator.provisioning import Outcome
from devicesim.emulator.registry import Partition
from devicesim.emulator.state.environment import Environment
from devicesim.emulator.state.records import EffectiveTemplate, ProvisioningTemplate

_MQTT_VERSIONS: Mapping[ProtocolVersion, str] = {ProtocolVersion.V311: "3.1.1", ProtocolVersion.V5: "5"}


class DecidedOn(Protocol):
    """What of a connection the history tells."""

    presented: Presented
    client_id: str

    @property
    def version(self) -> ProtocolVersion: ...


class Recorder:
    """See the module."""

    def __init__(self, history: History, clock: Clock) -> None:
        self._history = history
        self._clock = clock

    def add(self, **fields: object) -> None:
        """An entry that is about no connection; ``fields`` are those of :class:`Entry` but number and time."""
        self._history.add(lambda number: Entry(number=number, time=self._clock.wall(), **fields))  # type: ignore[arg-type]

    def provisioning(
        self,
        environment: Environment,
        partition: Partition,
        template: EffectiveTemplate | ProvisioningTemplate,
        outcome: Outcome,
        *,
        certificate_id: str,
        client_id: str | None = None,
        called: bool = True,
        quota: str | None = None,
    ) -> None:
        """A template was run for a device; ``called`` says whether RegisterThing was, which CloudTrail would have."""
        event = None
        if called:
            event = trail.RegisterThing(
                account_id=partition.account_id,
                region=partition.region,
                time=environment.now(),
                event_id=environment.uuid(),
                request_id=environment.uuid(),
                role_arn=template.role_arn,
                template_body=template.body,
                parameters=outcome.parameters,
                error=outcome.error,
                message=outcome.detail,
                resource_arns=outcome.resource_arns,
            )
        self.add(
            kind=Kind.PROVISIONING,
            verdict=history.PROVISIONED if outcome.succeeded else history.PROVISIONING_FAILED,
            account_id=partition.account_id,
            region=partition.region,
            client_id=client_id,
            certificate_id=certificate_id,
            reason=outcome.error,
            logged_by_aws=not outcome.succeeded,
            detail=outcome.detail,
            thing=outcome.thing_name,
            quota=quota,
            event=event,
        )

    def decision(self, connection: DecidedOn, decision: Decision) -> None:
        self.note(
            connection.presented,
            kind=Kind.CONNECTION,
            verdict=decision.verdict.value,
            partition=decision.partition,
            connection=connection,
            reason=None if decision.reason is None else str(decision.reason),
            logged=decision.logged and decision.reason is not None,
            detail=decision.detail,
        )

    def note(
        self,
        presented: Presented,
        *,
        kind: Kind,
        verdict: str,
        detail: str,
        partition: Partition | None = None,
        connection: DecidedOn | None = None,
        reason: str | None = None,
        logged: bool = False,
        fault: str | None = None,
        quota: str | None = None,
    ) -> None:
        raw = presented.server_name
        self._history.add(
            lambda number: Entry(
                number=number,
                time=self._clock.wall(),
                kind=kind,
                verdict=verdict,
                account_id=None if partition is None else partition.account_id,
                region=presented.door.region if partition is None else partition.region,
                server_name=None if raw is None else admission.printable(raw),
                client_id=None if connection is None else connection.client_id,
                certificate_id=presented.certificate_id,
                tls_version=presented.tls_version or None,
                mqtt_version=None if connection is None else _MQTT_VERSIONS[connection.version],
                source_ip=presented.source_ip,
                source_port=presented.source_port,
                reason=reason,
                logged_by_aws=logged,
                detail=detail,
                fault=fault,
                quota=quota,
            )
        )
