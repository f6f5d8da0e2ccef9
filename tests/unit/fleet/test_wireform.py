"""A share of a run and what it tells come out of the wire form as they went in."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devicesim.fleet.identities import Material
from devicesim.fleet.pacing import Shard
from devicesim.fleet.shard import Door, ShardPlan, Started
from devicesim.fleet.spec import Fleet, load_fleet, parse_fleet
from devicesim.fleet.wireform import Teller, read_plan, replay, write_plan
from devicesim.outcome import Alert, Attempt, Failure, FailureKind, Stage
from devicesim.pki.authority import Authority, new_shared_authority
from devicesim.pki.identity import private_key_pem
from devicesim.pki.profile import KeyType
from devicesim.record.facts import Drop, GeneratorSample
from devicesim.record.histogram import Histogram
from tests.support import ROOT

NOW = datetime(2026, 11, 27, tzinfo=UTC)
AUTHORITY = new_shared_authority("test CA", KeyType.EC_P256, now=NOW, validity=timedelta(days=1))
IMPORTED = """
version = 1
name = "imported"
[ca]
certificate = "ca.pem"
[devices]
keys = "imported"
bundles = "*.pem"
[accounts.a]
id = "111111111111"
ca_mode = "SNI_ONLY"
[groups.g]
count = 3
account = "a"
"""


def plan_of(fleet: Fleet, authority: Authority = AUTHORITY) -> ShardPlan:
    return ShardPlan(
        fleet=fleet,
        material=Material(authority=authority, secret=bytes(range(32))),
        doors={name: Door(endpoint=f"{name}.localhost", address=("127.0.0.1", 8883)) for name in fleet.file.accounts},
        roots=(AUTHORITY.certificate,),
        run_id="0123abcd",
        shard=Shard(first=1, step=2, count=3),
        only=None,
        hold=1.5,
        under_way=None,
    )


def key_of(plan: ShardPlan) -> str | None:
    key = plan.material.authority.key
    return None if key is None else private_key_pem(key)


def assert_same(expected: ShardPlan, actual: ShardPlan) -> None:
    assert key_of(actual) == key_of(expected)
    assert actual.material.secret == expected.material.secret
    assert actual.material.authority.chain == expected.material.authority.chain
    assert replace(actual, material=expected.material) == expected


@pytest.mark.parametrize("path", sorted((ROOT / "fleets").glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_fleet_crosses_whole(path: Path) -> None:
    fleet = load_fleet(path)
    # [emulator] may hold any TOML; no share needs it
    plan = plan_of(fleet)

    assert_same(plan, read_plan(write_plan(plan)))


@settings(max_examples=60, deadline=None)
@given(
    shard=st.builds(Shard, first=st.integers(0, 10**7), step=st.integers(1, 500), count=st.integers(0, 10**7)),
    only=st.none() | st.frozensets(st.integers(0, 10**7), max_size=5),
    hold=st.floats(0, 86_400),
    under_way=st.none() | st.integers(1, 10**7),
    sources=st.lists(st.ip_addresses(v=4).map(str), max_size=3).map(tuple),
    names=st.tuples(st.text(max_size=20), st.text(max_size=20)),
)
def test_whatever_a_plan_says_comes_out_again(
    shard: Shard,
    only: frozenset[int] | None,
    hold: float,
    under_way: int | None,
    sources: tuple[str, ...],
    names: tuple[str, str],
) -> None:
    fleet = load_fleet(ROOT / "fleets" / "walkthrough.toml")
    plan = replace(
        plan_of(fleet),
        shard=shard,
        only=only,
        hold=hold,
        under_way=under_way,
        sources=sources,
        run_id=names[0],
        process=names[1],
    )

    assert_same(plan, read_plan(write_plan(plan)))


def test_a_relative_path_is_the_same_place_in_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = plan_of(parse_fleet(IMPORTED, Path("fleet.toml")))

    assert read_plan(write_plan(plan)).fleet.resolve("*.pem") == tmp_path / "*.pem"


def test_a_fleet_that_mints_nothing_is_given_no_key_and_no_secret(tmp_path: Path) -> None:
    data = write_plan(plan_of(parse_fleet(IMPORTED, tmp_path / "fleet.toml")))

    material = read_plan(data).material
    assert material.authority.certificate == AUTHORITY.certificate
    assert (material.authority.key, material.secret) == (None, None)
    assert b"PRIVATE" not in data


def test_a_ca_without_its_key_and_a_chain_of_issuers_cross() -> None:
    upper = new_shared_authority("upper", KeyType.EC_P384, now=NOW, validity=timedelta(days=1))
    authority = Authority(certificate=AUTHORITY.certificate, key=None, parents=(upper.certificate,))
    plan = plan_of(load_fleet(ROOT / "fleets" / "walkthrough.toml"), authority)

    assert_same(plan, read_plan(write_plan(plan)))


# --- events ---

TEXTS = st.text(max_size=30)
NUMBERS = st.integers(0, 10**7)
TIMES = st.floats(0, 4e9)
ATTEMPTS = st.builds(
    Attempt,
    device=NUMBERS,
    number=st.integers(1, 100),
    account=st.none() | TEXTS,
    sni=st.none() | TEXTS,
    intended_start=TIMES,
    start=TIMES,
    end=TIMES,
    reached=st.dictionaries(st.sampled_from(Stage), st.floats(0, 100)),
    failure=st.none()
    | st.builds(Failure, kind=st.sampled_from(FailureKind), stage=st.sampled_from(Stage), detail=TEXTS),
    tls_version=st.none() | TEXTS,
    cipher=st.none() | TEXTS,
    alert=st.none() | st.builds(Alert, name=TEXTS, code=st.integers(0, 255), level=TEXTS, direction=TEXTS),
    connack_code=st.none() | st.integers(0, 255),
    published=st.none() | NUMBERS,
    acknowledged=st.none() | NUMBERS,
)
STARTED = st.builds(
    Started, number=NUMBERS, group=TEXTS, member=NUMBERS, client_id=TEXTS, certificate_id=st.text("0123456789abcdef")
)
SAMPLES = st.builds(
    GeneratorSample,
    process=TEXTS,
    at=TIMES,
    wall=TIMES,
    cpu=TIMES,
    starts=NUMBERS,
    lag=st.lists(st.floats(0, 10), max_size=20).map(Histogram),
    rss=st.integers(0, 2**50),
)
EVENTS = st.one_of(
    st.tuples(st.just("started"), STARTED),
    st.tuples(st.just("attempt"), ATTEMPTS, st.booleans()),
    st.tuples(st.just("finished"), NUMBERS, st.booleans()),
    st.tuples(st.just("dropped"), st.builds(Drop, device=NUMBERS, group=TEXTS, due=TIMES)),
    st.tuples(st.just("failed"), NUMBERS, TEXTS, TEXTS),
    st.tuples(st.just("sampled"), SAMPLES),
)
Event = tuple[object, ...]


class Heard:
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def started(self, device: Started) -> None:
        self.events.append(("started", device))

    def attempt(self, attempt: Attempt, *, live: bool) -> None:
        self.events.append(("attempt", attempt, live))

    def finished(self, device: int, *, accepted: bool) -> None:
        self.events.append(("finished", device, accepted))

    def dropped(self, drop: Drop) -> None:
        self.events.append(("dropped", drop))

    def failed(self, device: int, group: str, why: str) -> None:
        self.events.append(("failed", device, group, why))

    def sampled(self, sample: GeneratorSample) -> None:
        self.events.append(("sampled", sample))


def tell(sink: Teller, event: Event) -> None:
    match event:
        case ("attempt", Attempt() as attempt, bool(live)):
            sink.attempt(attempt, live=live)
        case ("finished", int(device), bool(accepted)):
            sink.finished(device, accepted=accepted)
        case (str(name), *arguments):
            getattr(sink, name)(*arguments)


@settings(max_examples=200, deadline=None)
@given(st.lists(EVENTS, max_size=10))
def test_what_a_share_tells_is_told_again_in_its_order(events: Sequence[Event]) -> None:
    words: list[str] = []
    teller = Teller(words.append)
    for event in events:
        tell(teller, event)

    heard = Heard()
    replay(",".join(words), heard)

    assert heard.events == list(events)
