"""Just in time (aws-iot-behaviour.md §2, §3): what a first connection sets going. Pure.

The record and the event at once, the provisioning template's run after its delay; one run at a time for each
certificate.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Protocol

from devicesim.emulator import events, history, provisioning
from devicesim.emulator.admission import Decision, Presented, Reason, Verdict
from devicesim.emulator.apierrors import APIError
from devicesim.emulator.history import Kind
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
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._recorder = recorder
        self._timers = timers
        self._uniform = uniform
        self._publish = publish
        self._running: set[tuple[str, str, str]] = set()
        """By account, Region and certificate id."""

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
        key = (partition.account_id, partition.region, certificate.certificate_id)
        if key in self._running:
            return
        self._running.add(key)
        at = now + self._uniform(*self._settings.jitp_delay)
        self._timers.schedule(at, partial(self._run, partition, certificate.certificate_id, template))

    def _run(self, partition: Partition, certificate_id: str, template: EffectiveTemplate, _now: float) -> None:
        self._running.discard((partition.account_id, partition.region, certificate_id))
        outcome = provisioning.provision(
            self._registry,
            partition,
            certificate_id,
            template,
            existing_thing=self._settings.jitp_existing_thing,
        )
        self._recorder.add(
            kind=Kind.PROVISIONING,
            verdict=history.PROVISIONED if outcome.succeeded else history.PROVISIONING_FAILED,
            account_id=partition.account_id,
            region=partition.region,
            certificate_id=certificate_id,
            reason=outcome.error,
            logged_by_aws=not outcome.succeeded,
            detail=outcome.detail,
            thing=outcome.thing_name,
        )
