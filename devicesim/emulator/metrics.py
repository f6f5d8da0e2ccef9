"""The emulator's numbers in Prometheus' text format, read off the core when they are asked for.

Names begin with ``devicesim_``. What AWS has in CloudWatch (``Connect.Success``, ``Connect.AuthError``,
``Connect.Throttle``, ...) are values of the label ``verdict`` and ``reason`` of ``devicesim_events_total``.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0

from devicesim.emulator.core import Core

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_1_0_0
_ACCOUNT: Final = ("account", "region")


class Metrics:
    """A registry of its own: what else uses ``prometheus_client`` in this process stays apart."""

    def __init__(self, core: Core) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Core(core))
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """The document, of :data:`CONTENT_TYPE`."""
        return generate_latest(self._registry)


class _Core:
    def __init__(self, core: Core) -> None:
        self._core = core

    def collect(self) -> Iterator["Metric"]:
        yield self._events()
        yield from self._accounts()
        yield from self._data_plane()

    def _events(self) -> "Metric":
        events = CounterMetricFamily(
            "devicesim_events",
            "Entries of the history since the start or the last reset; reason is AWS's code, or empty.",
            labels=("kind", "verdict", "account", "region", "reason"),
        )
        for (kind, verdict, account, region, reason), count in self._core.history.tally.items():
            events.add_metric((kind.value, verdict, account or "", region or "", reason or ""), count)
        return events

    def _accounts(self) -> Iterator["Metric"]:
        loads = {
            "connections": GaugeMetricFamily("devicesim_connections", "MQTT connections.", labels=_ACCOUNT),
            "sessions": GaugeMetricFamily(
                "devicesim_sessions", "MQTT sessions, also of absent clients.", labels=_ACCOUNT
            ),
            "subscriptions": GaugeMetricFamily("devicesim_subscriptions", "MQTT subscriptions.", labels=_ACCOUNT),
            "retained": GaugeMetricFamily("devicesim_retained_messages", "Retained messages.", labels=_ACCOUNT),
        }
        held = GaugeMetricFamily(
            "devicesim_resources", "What the registry holds, by kind.", labels=(*_ACCOUNT, "resource")
        )
        taken = CounterMetricFamily(
            "devicesim_messages", "Messages taken from clients, sent again ones too.", labels=(*_ACCOUNT, "qos")
        )
        for partition in self._core.registry.partitions():
            labels = (partition.account_id, partition.region)
            load = self._core.plane.load(partition)
            for name, family in loads.items():
                family.add_metric(labels, getattr(load, name))
            for qos, count in load.taken.items():
                taken.add_metric((*labels, str(qos)), count)
            for resource, collection in (
                ("ca_certificate", partition.cas),
                ("certificate", partition.certificates),
                ("thing", partition.things),
                ("policy", partition.policies),
                ("provisioning_template", partition.templates),
            ):
                held.add_metric((*labels, resource), len(collection))
        yield from loads.values()
        yield taken
        yield held

    def _data_plane(self) -> Iterator["Metric"]:
        core = self._core
        runs = core.plane.provisioning_runs
        yield GaugeMetricFamily("devicesim_provisioning_runs", "JITP runs under way.", value=runs)
        yield GaugeMetricFamily(
            "devicesim_clock_advanced_seconds", "By how much the clock was put forward.", value=core.clock.advanced
        )
        throttled = CounterMetricFamily("devicesim_throttled", "Requests over a quota, by quota.", labels=("quota",))
        for quota, count in core.quotas.throttled.items():
            throttled.add_metric((quota,), count)
        yield throttled
        fired = CounterMetricFamily("devicesim_faults", "Firings of the faults on the board.", labels=("fault", "kind"))
        for status in core.faults.list(core.clock.now()):
            fired.add_metric((status.fault.name, status.fault.kind.value), status.fired)
        yield fired
        calls = CounterMetricFamily(
            "devicesim_api_calls",
            "Calls of the control plane, by operation and error code (OK when it succeeded).",
            labels=("service", "operation", "code"),
        )
        for labels, count in core.api_calls.items():
            calls.add_metric(labels, count)
        yield calls
