"""Just in time (aws-iot-behaviour.md §2, §3): what a first connection sets going. Pure.

The record and the event at once, the provisioning template's run after its delay; one run at a time for each
certificate.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Protocol

from devicesim.emulator import delays, events, history, provisioning
from devicesim.emulator.admission import Decision, Presented, Reason, Verdict
from devicesim.emulator.apierrors import APIError
from devicesim.emulator.faults import FaultKind
from devicesim.emulator.guard import Guard, account_key
from devicesim.emulator.history import Kind
from devicesim.emulator.quotas import JITP_OPERATION
from devicesim.emulator.recorder import DecidedOn, Recorder
from devicesim.emulator.registry import Partition, Registry
from devicesim.emulator.session import Message
from devicesim.emulator.settings import Settings
from devicesim.emulator.state.records import DeviceCertificate, EffectiveTemplate
from devicesim.emulator.timers import Timers


class Publish(Protocol):
    def __call__(self, partition: Partition, message: Message, now: float) -> int: ...


class JustInTime:
    """See the module."""

    def __init__(
        self,
        registry: Registry,
        *,
        settings: Settings,
        recorder: Recorder,
        timers: Timers,
        uniform: Callable[[float, float], float],
        publish: Publish,
        guard: Guard,
    ) -> None:
        self._guard = guard
        self._registry = registry
        self._settings = settings
        self._recorder = recorder
        self._timers = timers
        self._uniform = uniform
        self._publish = publish
        self._running: set[tuple[str, str, str]] = set()
        """By account, Region and certificate id."""

    def reset(self) -> None:
        """Forget the runs under way: their accounts are no more (POST /reset)."""
        self._running.clear()

    @property
    def runs(self) -> int:
        """JITP runs under way."""
        return len(self._running)

    def register(self, presented: Presented, decision: Decision) -> Decision:
        """Make the record that a REGISTERED decision speaks of; REFUSED when the certificate cannot be taken."""
        partition, leaf, ca = decision.partition, presented.leaf, decision.ca
        assert partition is not None
        assert leaf is not None
        assert ca is not None
        try:
            certificate = self._registry.auto_register(partition, leaf, ca)
        except APIError as error:  # a key or signature that AWS takes from nobody
            return replace(
                decision,
                verdict=Verdict.REFUSED,
                reason=Reason.DEVICE_CERTIFICATE_NOT_REGISTERED,
                detail=f"cannot be registered: {error.message}",
            )
        return replace(decision, certificate=certificate)

    def presented(self, connection: DecidedOn, decision: Decision, now: float) -> None:
        """A certificate that waits for activation was presented: tell of it, and run its template."""
        partition, certificate = decision.partition, decision.certificate
        assert partition is not None
        assert certificate is not None
        if certificate.ca_certificate_id is None:
            return  # made by the service (a claim not yet provisioned): no CA registered it, and no topic is its
        if decision.template is None or self._settings.registered_event_for_jitp:
            first = decision.verdict is Verdict.REGISTERED
            self._publish_registered(connection, partition, certificate, now, first=first)
        if decision.template is not None:
            self._start(partition, certificate, decision.template, now)

    def _publish_registered(
        self, connection: DecidedOn, partition: Partition, certificate: DeviceCertificate, now: float, *, first: bool
    ) -> None:
        message = events.certificate_registered(
            certificate,
            account_id=partition.account_id,
            source_ip=connection.presented.source_ip,
            now=self._registry.environment.now(),
            first=first,
        )
        receivers = self._publish(partition, message, now)
        self._recorder.note(
            connection.presented,
            kind=Kind.EVENT,
            verdict=history.PUBLISHED,
            partition=partition,
            connection=connection,
            detail=f"{message.topic} to {receivers} subscribers",
        )

    def _start(
        self, partition: Partition, certificate: DeviceCertificate, template: EffectiveTemplate, now: float
    ) -> None:
        key = (*account_key(partition), certificate.certificate_id)
        if key in self._running:
            return
        self._running.add(key)
        settings, certificate_id = self._settings, certificate.certificate_id
        at = now + delays.draw(settings.jitp_delay_shape, settings.jitp_delay, self._uniform)
        late = self._guard.provisioning_fault(FaultKind.DELAY_PROVISIONING, now, partition, certificate_id)
        if late is not None:
            at += late.time
        self._timers.schedule(at, partial(self._call, partition, certificate_id, template))

    def _call(self, partition: Partition, certificate_id: str, template: EffectiveTemplate, now: float) -> None:
        """RegisterThing is to be called: at once, in its turn, or not (``jitp_throttled``)."""
        if not self._registry.holds(partition):
            return  # everything was reset in the meantime
        account = account_key(partition)
        quotas = self._guard.quotas
        if self._settings.jitp_throttled == "queue":
            wait = quotas.reserve_call(account, JITP_OPERATION, now)
            if wait > 0:
                self._timers.schedule(now + wait, partial(self._run, partition, certificate_id, template))
                return
        else:
            throttled = quotas.call(account, JITP_OPERATION, now)
            if throttled is not None:
                refusal = ("ThrottlingException", "Rate exceeded")
                self._failed(partition, certificate_id, template, *refusal, quota=throttled.quota)
                return
        self._run(partition, certificate_id, template, now)

    def _failed(
        self,
        partition: Partition,
        certificate_id: str,
        template: EffectiveTemplate,
        error: str,
        detail: str,
        *,
        quota: str | None = None,
    ) -> None:
        """Before the template was looked at: the device's next CONNECT tries again."""
        self._running.discard((*account_key(partition), certificate_id))
        record = partition.certificates.get(certificate_id)
        parameters = {} if record is None else provisioning.parameters_of(record)
        outcome = provisioning.Outcome(succeeded=False, error=error, detail=detail, parameters=parameters)
        self._tell(partition, certificate_id, template, outcome, quota=quota)

    def _run(self, partition: Partition, certificate_id: str, template: EffectiveTemplate, now: float) -> None:
        if not self._registry.holds(partition):
            return  # as in _call()
        denied = self._guard.provisioning_fault(FaultKind.FAIL_PROVISIONING, now, partition, certificate_id)
        if denied is not None:
            detail = f"fault {denied.name}: the role {template.role_arn} may not be assumed"
            self._failed(partition, certificate_id, template, "AccessDeniedException", detail)
            return
        self._running.discard((*account_key(partition), certificate_id))
        outcome = provisioning.provision(
            self._registry,
            partition,
            certificate_id,
            template,
            existing_thing=self._settings.jitp_existing_thing,
        )
        self._tell(partition, certificate_id, template, outcome)

    def _tell(
        self,
        partition: Partition,
        certificate_id: str,
        template: EffectiveTemplate,
        outcome: provisioning.Outcome,
        *,
        quota: str | None = None,
    ) -> None:
        self._recorder.provisioning(
            self._registry.environment,
            partition,
            template,
            outcome,
            certificate_id=certificate_id,
            called=bool(outcome.parameters),
            quota=quota,
        )
