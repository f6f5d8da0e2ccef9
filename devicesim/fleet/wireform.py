"""How a share of a run, and what it tells, cross from one process to another: JSON, read back equal. Pure.

No object is pickled but by Dask in its own messages: keys and certificates go as PEM, and a process of another version
of Python reads what this one wrote. Versions of devicesim are not mixed (:mod:`devicesim.fleet.workers` sees to it), so
the form carries no number of its own and may change with any version.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509

from devicesim.fleet.identities import Material
from devicesim.fleet.pacing import Shard
from devicesim.fleet.sections import FleetFile
from devicesim.fleet.shard import Door, ShardPlan, Sink, Started
from devicesim.fleet.spec import Fleet
from devicesim.outcome import Alert, Attempt, Failure, FailureKind, Stage
from devicesim.pki.authority import Authority
from devicesim.pki.identity import certificate_pem, load_certificates, private_key_pem
from devicesim.record.facts import Drop, GeneratorSample
from devicesim.record.histogram import Histogram

SOURCE = "the share of the run"
"""Where key material is said to come from in an error."""


# --- the plan ---


def write_plan(plan: ShardPlan) -> bytes:
    """A share of a run, with the secrets that its devices are made from, and no others: a fleet of imported identities
    needs neither the CA's key nor a fleet secret."""
    fleet, authority = plan.fleet, plan.material.authority
    mints = fleet.file.devices.keys != "imported"
    secret = plan.material.secret if mints else None
    return json.dumps(
        {
            "fleet": {
                "file": fleet.file.model_dump(mode="json", exclude_unset=True),
                "path": str(fleet.path.absolute()),
                "text": fleet.text,
                "templates": dict(fleet.templates),
                "policies": dict(fleet.policies),
            },
            "ca": _pem(authority.chain),
            "ca_key": private_key_pem(authority.key) if mints and authority.key is not None else None,
            "secret": None if secret is None else b64encode(secret).decode("ascii"),
            "doors": {name: [door.endpoint, *door.address] for name, door in plan.doors.items()},
            "roots": _pem(plan.roots),
            "run_id": plan.run_id,
            "shard": [plan.shard.first, plan.shard.step, plan.shard.count],
            "only": None if plan.only is None else sorted(plan.only),
            "hold": plan.hold,
            "under_way": plan.under_way,
            "sources": list(plan.sources),
            "process": plan.process,
        }
    ).encode()


def read_plan(data: bytes) -> ShardPlan:
    """What :func:`write_plan` wrote."""
    plan: dict[str, Any] = json.loads(data)
    fleet, key = plan["fleet"], plan["ca_key"]
    first, step, count = plan["shard"]
    return ShardPlan(
        fleet=Fleet(
            file=FleetFile.model_validate(fleet["file"]),
            path=Path(fleet["path"]),
            text=fleet["text"],
            templates=fleet["templates"],
            policies=fleet["policies"],
        ),
        material=Material(
            authority=Authority.load(plan["ca"].encode(), None if key is None else key.encode(), SOURCE),
            secret=None if plan["secret"] is None else b64decode(plan["secret"]),
        ),
        doors={name: Door(endpoint=name_, address=(host, port)) for name, (name_, host, port) in plan["doors"].items()},
        roots=load_certificates(plan["roots"].encode(), SOURCE) if plan["roots"] else (),
        run_id=plan["run_id"],
        shard=Shard(first=first, step=step, count=count),
        only=None if plan["only"] is None else frozenset(plan["only"]),
        hold=plan["hold"],
        under_way=plan["under_way"],
        sources=tuple(plan["sources"]),
        process=plan["process"],
    )


def _pem(certificates: tuple[x509.Certificate, ...]) -> str:
    return "".join(certificate_pem(each) for each in certificates)


# --- what a share tells ---


class Teller:
    """A :class:`~devicesim.fleet.shard.Sink` that puts what it is told into words for :func:`replay`.

    Each event is written when it happens, some 5 µs: a batch of thousands written at once would hold up the devices.
    """

    def __init__(self, put: Callable[[str], None]) -> None:
        self._put = put

    def started(self, device: Started) -> None:
        self._tell("s", device.number, device.group, device.member, device.client_id, device.certificate_id)

    def attempt(self, attempt: Attempt, *, live: bool) -> None:
        failure, alert = attempt.failure, attempt.alert
        self._tell(
            "a",
            live,
            attempt.device,
            attempt.number,
            attempt.account,
            attempt.sni,
            attempt.intended_start,
            attempt.start,
            attempt.end,
            attempt.reached,
            None if failure is None else (failure.kind, failure.stage, failure.detail),
            attempt.tls_version,
            attempt.cipher,
            None if alert is None else (alert.name, alert.code, alert.level, alert.direction),
            attempt.connack_code,
            attempt.published,
            attempt.acknowledged,
        )

    def finished(self, device: int, *, accepted: bool) -> None:
        self._tell("f", device, accepted)

    def dropped(self, drop: Drop) -> None:
        self._tell("d", drop.device, drop.group, drop.due)

    def failed(self, device: int, group: str, why: str) -> None:
        self._tell("x", device, group, why)

    def sampled(self, sample: GeneratorSample) -> None:
        lag = sample.lag.to_dict()
        self._tell("g", sample.process, sample.at, sample.wall, sample.cpu, sample.starts, lag, sample.rss)

    def _tell(self, *event: object) -> None:
        self._put(_JSON(event))


_JSON = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def replay(events: str, sink: Sink) -> None:
    """Tell ``sink`` what a :class:`Teller` was told: its words, in their order, with commas between."""
    for event in json.loads(f"[{events}]"):
        _REPLAY[event[0]](sink, *event[1:])


def _started(sink: Sink, number: int, group: str, member: int, client_id: str, certificate_id: str) -> None:
    sink.started(Started(number=number, group=group, member=member, client_id=client_id, certificate_id=certificate_id))


def _attempt(
    sink: Sink,
    live: bool,
    device: int,
    number: int,
    account: str | None,
    sni: str | None,
    intended_start: float,
    start: float,
    end: float,
    reached: dict[str, float],
    failure: tuple[str, str, str] | None,
    tls_version: str | None,
    cipher: str | None,
    alert: tuple[str, int, str, str] | None,
    connack_code: int | None,
    published: int | None,
    acknowledged: int | None,
) -> None:
    told = Attempt(
        device=device,
        number=number,
        account=account,
        sni=sni,
        intended_start=intended_start,
        start=start,
        end=end,
        reached={Stage(stage): seconds for stage, seconds in reached.items()},
        failure=failure and Failure(kind=FailureKind(failure[0]), stage=Stage(failure[1]), detail=failure[2]),
        tls_version=tls_version,
        cipher=cipher,
        alert=alert and Alert(name=alert[0], code=alert[1], level=alert[2], direction=alert[3]),
        connack_code=connack_code,
        published=published,
        acknowledged=acknowledged,
    )
    sink.attempt(told, live=live)


def _finished(sink: Sink, device: int, accepted: bool) -> None:
    sink.finished(device, accepted=accepted)


def _dropped(sink: Sink, device: int, group: str, due: float) -> None:
    sink.dropped(Drop(device=device, group=group, due=due))


def _failed(sink: Sink, device: int, group: str, why: str) -> None:
    sink.failed(device, group, why)


def _sampled(
    sink: Sink, process: str, at: float, wall: float, cpu: float, starts: int, lag: dict[str, Any], rss: int
) -> None:
    sink.sampled(
        GeneratorSample(
            process=process, at=at, wall=wall, cpu=cpu, starts=starts, lag=Histogram.from_dict(lag), rss=rss
        )
    )


_REPLAY: dict[str, Callable[..., None]] = {
    "s": _started,
    "a": _attempt,
    "f": _finished,
    "d": _dropped,
    "x": _failed,
    "g": _sampled,
}
