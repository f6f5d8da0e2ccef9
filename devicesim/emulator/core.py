"""Everything of the emulator that decides, joined. Pure: :mod:`~devicesim.emulator.service` puts sockets around it, and
tests a world without any.

    core = Core(settings=Settings(), clock=clock, randbytes=secrets.token_bytes, uniform=random.uniform)
    core.plane.open(...)
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from devicesim.emulator.api import ControlPlane
from devicesim.emulator.apierrors import APIError
from devicesim.emulator.claims import Claims
from devicesim.emulator.clock import Clock
from devicesim.emulator.dataplane import DataPlane
from devicesim.emulator.explain import Explainer
from devicesim.emulator.faults import FaultBoard
from devicesim.emulator.history import History
from devicesim.emulator.operations import table
from devicesim.emulator.operations.data import DataOperations
from devicesim.emulator.operations.eventhistory import EventHistory
from devicesim.emulator.operations.logevents import LogEvents
from devicesim.emulator.provisioning import validate_template
from devicesim.emulator.quotas import QuotaMeter
from devicesim.emulator.recorder import Recorder
from devicesim.emulator.registry import Partition, Registry
from devicesim.emulator.registryevents import RegistryEvent
from devicesim.emulator.session import Message
from devicesim.emulator.settings import Settings
from devicesim.emulator.shadowservice import ShadowService
from devicesim.emulator.state.records import ProvisioningClaim
from devicesim.emulator.topicrules.engine import RulesEngine

_TICK = 0.001
"""Seconds to which the registry knows the time."""


class Core:
    """One emulator without its sockets."""

    def __init__(
        self,
        *,
        settings: Settings,
        clock: Clock,
        randbytes: Callable[[int], bytes],
        uniform: Callable[[float, float], float],
        new_id: Callable[[], str] | None = None,
        fault_seed: int = 0,
    ) -> None:
        """``uniform(low, high)`` draws delays; ``new_id`` makes client ids and trace ids (left out: the registry's);
        ``fault_seed`` decides which of many a fault hits."""
        self.settings = settings
        self._announced: tuple[tuple[str, str], ...] = ()
        self.on_reset: list[Callable[[], None]] = []
        """Called by :meth:`reset` when everything is gone: append."""
        self.clock = clock
        self.registry = Registry(
            clock=clock.wall,
            randbytes=randbytes,
            template_validator=validate_template,
            settings=settings.control,
        )
        self.history = History(settings.history_size)
        self.api_calls: Counter[tuple[str, str, str]] = Counter()
        """Calls of the API by service, operation and error code (``OK``)."""
        self.quotas = QuotaMeter(settings.quotas)
        self.faults = FaultBoard(fault_seed)
        self.plane = DataPlane(
            self.registry,
            settings=settings,
            record=self.history,
            clock=clock,
            uniform=uniform,
            new_id=new_id or self.registry.environment.uuid,
            quotas=self.quotas,
            faults=self.faults,
        )
        self.explainer = Explainer(self.plane)
        self.on_reset.append(self.explainer.clear)
        self.shadows = ShadowService(self.registry, self.plane)
        self.rules = RulesEngine(
            self.registry,
            self.plane,
            settings=settings,
            recorder=Recorder(self.history, clock),
            clock=clock,
            uniform=uniform,
        )
        self._data = DataOperations(self.plane, self.shadows, self.settings)
        self._told = {"cloudtrail": EventHistory(self.history).handlers, "logs": LogEvents(self.history).handlers}
        self.rules.publish_reserved = self.shadows.published
        self.rules.get_shadow = self._shadow_for_rules
        self.claims = Claims(
            self.registry,
            self.plane,
            settings=settings,
            recorder=Recorder(self.history, clock),
        )
        self.registry.claims.on_created.append(self._end_claim_in_time)
        self.registry.on_adopt.append(self._adopted)
        self.registry.environment.event_listeners.append(self._publish_event)

    def _publish_event(self, partition: Partition, event: RegistryEvent) -> None:
        environment = self.registry.environment
        payload = event.payload(event_id=environment.uuid(), now=environment.now(), account_id=partition.account_id)
        self.plane.publish(partition, Message(topic=event.topic, payload=payload, qos=1), self.clock.now())

    def _shadow_for_rules(self, partition: Partition, thing_name: str, name: str | None) -> Mapping[str, object] | None:
        try:
            document: Mapping[str, object] = json.loads(self.shadows.document(partition, thing_name, name))
        except APIError:
            return None
        return document

    def _adopted(self, partition: Partition) -> None:
        for claim in partition.claims.values():
            self._end_claim_in_time(partition, claim)

    def _end_claim_in_time(self, partition: Partition, claim: ProvisioningClaim) -> None:
        def end(_now: float) -> None:
            for each in self.registry.partitions():  # not the partition itself: it may be forgotten by then
                if (each.account_id, each.region) == (partition.account_id, partition.region):
                    self.registry.claims.expire(each)

        seconds = claim.expiration - self.clock.wall() + _TICK
        self.plane.timers.schedule(self.clock.now() + seconds, end)
        self.plane.wake()

    def announce(self, accounts: Iterable[tuple[str, str]]) -> None:
        """Accounts (id, Region) that are there from the beginning, and again after a reset."""
        self._announced = tuple(accounts)
        for account_id, region in self._announced:
            self.registry.partition(account_id, region)

    def reset(self) -> None:
        """Back to the beginning: no state, no connection, no history, no fault. The clock stays where it is."""
        self.plane.reset(self.clock.now())
        self.registry.clear()
        self.history.clear()
        self.rules.changed()
        self.api_calls.clear()
        self.faults.clear()
        self.quotas.replace(self.settings.quotas)
        self.quotas.throttled.clear()
        for listener in self.on_reset:
            listener()
        self.announce(self._announced)
        self.plane.commit()

    @property
    def operations(self) -> frozenset[str]:
        """Every emulated operation that quotas and faults know."""
        told = (name for handlers in self._told.values() for name in handlers)
        return frozenset(table.IOT) | frozenset(self._data.handlers) | frozenset(told)

    def control_plane(self, access_keys: Mapping[str, str] | None = None) -> ControlPlane:
        """The API, which acts on this core; ``access_keys`` maps access key ids to account ids."""
        return ControlPlane(
            self.registry,
            access_keys=access_keys,
            commit=lambda: self.plane.commit(),
            gate=self.plane.guard.call,
            calls=self.api_calls,
            data=self._data.handlers,
            told=self._told,
        )
