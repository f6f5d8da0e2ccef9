"""The devices that one process drives: when they are minted and started, and what is told of them."""

import gc
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import process_time
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import crypto
from trio.testing import MockClock

from devicesim.errors import KeyMaterialError
from devicesim.fleet import device as device_module
from devicesim.fleet import shard as module
from devicesim.fleet.device import Clock, Device, Record, Wire
from devicesim.fleet.identities import Material, Minter, minter
from devicesim.fleet.pacing import split
from devicesim.fleet.shard import Door, ShardPlan, ShardRun, Started, schedule
from devicesim.fleet.spec import Fleet
from devicesim.outcome import Failure, FailureKind, Stage
from devicesim.pki.identity import Identity, certificate_pem, private_key_pem
from tests.fleet_support import (
    EPOCH,
    FakeNet,
    Session,
    Told,
    clock_now,
    fleet_of,
    machine,
    material,
    plan_of,
    refused,
)
from tests.net_support import device as identity_of


@dataclass
class Driven:
    """Takes the place of :func:`~devicesim.fleet.device.drive`: each device lives for some seconds."""

    seconds: Callable[[int], float] = lambda _: 0.0
    starts: dict[int, float] = field(default_factory=dict)
    """When each was started, by its number."""
    dues: dict[int, float] = field(default_factory=dict)
    devices: dict[int, Device] = field(default_factory=dict)
    delays: dict[int, list[float]] = field(default_factory=dict)
    anew: dict[int, list[float]] = field(default_factory=dict)
    """The delays after a connection that was lost."""
    at_once: int = 0
    most: int = 0

    async def __call__(
        self,
        device: Device,
        wire: Wire,
        due: float,
        delays: Iterator[float],
        clock: Clock,
        record: Record,
        live: Record | None = None,
        anew: Callable[[int, int], Iterator[float]] | None = None,
        ended: Callable[[int, bool], None] | None = None,
    ) -> bool:
        del wire, clock, record, live
        assert anew is not None
        assert ended is not None
        self.starts[device.number], self.dues[device.number] = trio.current_time(), due
        self.devices[device.number], self.delays[device.number] = device, list(delays)
        self.anew[device.number] = [*anew(device.number, 1), *anew(device.number, 2)]
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await trio.sleep(self.seconds(device.number))
        self.at_once -= 1
        ended(device.number, True)
        return True


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> Driven:
    made = Driven()
    monkeypatch.setattr(module, "drive", made)
    return made


@dataclass
class Minted:
    """Counts what is minted, and when."""

    at: dict[tuple[str, int], float] = field(default_factory=dict)
    wrong: frozenset[tuple[str, int]] = frozenset()
    """Devices for which there is no identity."""

    def minter(self, fleet: Fleet, material: Material) -> Minter:
        del material
        made = identity_of()

        def mint(group: str, member: int) -> Identity:
            self.at[group, member] = trio.current_time()
            if (group, member) in self.wrong:
                raise KeyMaterialError(f"no identity {member} of {group}")
            return made

        return mint


class AtStarts(Told):
    """Looks at each start at how many devices are minted, this one among them, and not yet started."""

    def __init__(self, minted: Minted) -> None:
        super().__init__()
        self._minted = minted
        self.most_ahead = 0

    def started(self, device: Started) -> None:
        self.most_ahead = max(self.most_ahead, len(self._minted.at) - len(self.devices))
        super().started(device)


@pytest.fixture
def minted(monkeypatch: pytest.MonkeyPatch) -> Minted:
    """One identity for all: only when they are asked for is looked at."""
    made = Minted()
    monkeypatch.setattr(module, "minter", made.minter)
    return made


def many(count: int, *more: str) -> Fleet:
    text = f"""
version = 1
name = "many"
[accounts.a]
id = "111111111111"
ca_mode = "SNI_ONLY"
provisioning = "JITP"
[groups.g]
count = {count}
account = "a"
"""
    return fleet_of(*more, text=text)


async def run(plan: ShardPlan, *, told: Told | None = None, first: float = 0.0, cancel_at: float | None = None) -> Told:
    """Drive a share from ``first`` on the trio clock to its end, or until it is cancelled."""
    told = told or Told()
    share = ShardRun(plan, told, clock_now(), machine())
    await share.arm()
    with trio.CancelScope() as scope:
        if cancel_at is not None:
            scope.deadline = cancel_at
        await share.run(first)
    return told


def near(*seconds: float) -> object:
    return pytest.approx(list(seconds), abs=1e-6)


# --- who starts, and when ---


@pytest.mark.parametrize("life", [0.0, 0.3, 500.0])
async def test_starts_are_due_at_their_times_whatever_devices_do(
    life: float, driven: Driven, autojump_clock: MockClock
) -> None:
    driven.seconds = lambda _: life
    told = await run(plan_of(fleet_of('[arrival]\nrate = "4/s"')), first=2.0)

    assert list(driven.starts) == list(range(9))
    assert list(driven.starts.values()) == near(*(2 + n / 4 for n in range(9)))
    assert driven.dues == driven.starts
    assert told.of("started") == list(range(9))
    assert sorted(told.of("finished")) == list(range(9))
    assert told.drops == []


async def test_start_that_is_late_keeps_the_time_at_which_it_was_due(driven: Driven, autojump_clock: MockClock) -> None:
    await trio.sleep(10)
    await run(plan_of(fleet_of('[arrival]\nrate = "1/s"')), first=5.0)

    # those that are due together start in one row, in whatever order trio then runs them
    assert [driven.dues[n] for n in range(9)] == near(*(5 + n for n in range(9)))
    assert [driven.starts[n] for n in range(9)] == near(10, 10, 10, 10, 10, 10, 11, 12, 13)


async def test_stages_and_bursts_start_when_their_schedule_says(driven: Driven, autojump_clock: MockClock) -> None:
    await run(plan_of(fleet_of("[arrival]\nburst = { size = 4, every = 30 }")))

    assert list(driven.starts.values()) == near(0, 0, 0, 0, 30, 30, 30, 30, 60)


async def test_only_the_devices_that_were_asked_for_start_and_close_up(
    driven: Driven, autojump_clock: MockClock
) -> None:
    told = await run(plan_of(fleet_of('[arrival]\nrate = "1/s"'), only=frozenset({7, 2, 3})))

    assert driven.starts == {2: near_one(0), 3: near_one(1), 7: near_one(2)}
    assert told.of("finished") == [2, 3, 7]


def near_one(seconds: float) -> object:
    return pytest.approx(seconds, abs=1e-6)


async def test_all_shares_together_are_the_whole_run(driven: Driven, autojump_clock: MockClock) -> None:
    """Same devices, same identities, same due times, same delays before they try again."""
    text = fleet_of().text.replace("first_delay = [2, 2]", "first_delay = [1, 9]")
    fleet = fleet_of('[arrival]\nrate = "10/s"', text=text).resized(50)
    whole = await run(plan_of(fleet), first=1.0)
    dues, starts = dict(driven.dues), {each.number: each for each in whole.devices}
    delays, anew = dict(driven.delays), dict(driven.anew)
    driven.dues.clear()
    driven.delays.clear()
    driven.anew.clear()

    shares = Told()
    begin = trio.current_time() + 1
    for shard in split(50, 4):
        await run(plan_of(fleet, shard=shard), told=shares, first=begin)

    assert {each.number: each for each in shares.devices} == starts
    assert {number: due - begin + 1.0 for number, due in driven.dues.items()} == pytest.approx(dues)
    assert (driven.delays, driven.anew) == (delays, anew)
    assert len({first for first, *_ in delays.values()}) == 50, "each device waits its own time"
    # of three tries two are after a wait; those of a fleet that lost its connections together are spread each time
    assert {len(each) for each in anew.values()} == {2 * 2}
    assert len({first for each in anew.values() for first in each[::2]} - {each[0] for each in delays.values()}) == 100
    assert len({each.certificate_id for each in shares.devices}) == 50


ARRIVALS = (
    '[arrival]\nrate = "7/s"',
    "[arrival]\nstart_rate = 1\nstages = [{ target = 50, duration = 3 }, { target = 5, duration = 0 }]",
    "[arrival]\nburst = { size = 5, every = 2 }",
    '[arrival]\nmodel = "closed"\nconcurrency = 3',
)


@given(
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    parts=st.integers(1, 9),
    arrival=st.sampled_from(ARRIVALS),
    share=st.none() | st.floats(0.01, 1),
)
@settings(max_examples=80)
def test_shares_make_the_whole_schedule_between_them(
    sizes: tuple[int, int], parts: int, arrival: str, share: float | None
) -> None:
    fleet = fleet_of(arrival)
    counts = dict(zip(fleet.file.groups, sizes, strict=True))
    groups = {name: group.model_copy(update={"count": counts[name]}) for name, group in fleet.file.groups.items()}
    fleet = replace(fleet, file=fleet.file.model_copy(update={"groups": groups}))
    only = None if share is None else frozenset(n for n in range(fleet.size) if n * share % 1 < share) | {0}
    plan = plan_of(fleet, only=only)

    whole = list(schedule(plan))
    shares = [each for shard in split(plan.total, parts) for each in schedule(replace(plan, shard=shard))]

    assert sorted(shares, key=lambda each: each[1].device) == whole
    assert [due for due, _ in whole] == sorted(due for due, _ in whole)
    assert {slot.device for _, slot in whole} == (set(range(fleet.size)) if only is None else only)
    if only is None:
        assert Counter(slot.group for _, slot in whole) == counts


def test_share_of_a_few_devices_does_not_count_all_the_others() -> None:
    """Seconds, for a large fleet, in which the devices that are under way would stand still."""
    fleet = many(10_000_000)
    began = process_time()

    middle = list(schedule(plan_of(fleet, only=frozenset({5_000_000, 5_000_007}))))

    assert [(due, slot.device) for due, slot in middle] == [(0.0, 5_000_000), (1 / 50, 5_000_007)]
    assert process_time() - began < 1.0
    assert list(schedule(plan_of(fleet, only=frozenset()))) == []


# --- the closed model ---


async def test_closed_model_has_so_many_at_a_time_and_the_next_starts_when_one_ends(
    driven: Driven, autojump_clock: MockClock
) -> None:
    driven.seconds = lambda number: 5.0 if number == 0 else 2.0
    told = await run(plan_of(fleet_of('[arrival]\nmodel = "closed"\nconcurrency = 3')))

    assert driven.most == 3
    assert list(driven.starts.values()) == near(0, 0, 0, 2, 2, 4, 4, 5, 6)
    # the device is due when there is a place for it: it is not late
    assert driven.dues == driven.starts
    assert (told.drops, sorted(told.of("finished"))) == ([], list(range(9)))


async def test_place_of_a_device_that_cannot_be_minted_is_given_to_the_next(
    driven: Driven, minted: Minted, autojump_clock: MockClock
) -> None:
    driven.seconds = lambda _: 1.0
    minted.wrong = frozenset({("g", 1), ("g", 2), ("g", 3)})
    told = await run(plan_of(many(6, '[arrival]\nmodel = "closed"\nconcurrency = 2')))

    assert told.of("failed") == [1, 2, 3]
    assert driven.starts == {0: near_one(0), 4: near_one(0), 5: near_one(1)}


# --- no more than so many under way ---


async def test_start_that_is_due_while_too_many_are_under_way_is_dropped_and_told(
    driven: Driven, autojump_clock: MockClock
) -> None:
    driven.seconds = lambda _: 2.5
    told = await run(plan_of(fleet_of('[arrival]\nrate = "1/s"\nmax_under_way = 2')), first=4.0)

    assert told.of("started") == [0, 1, 3, 4, 6, 7]
    assert driven.most == 2
    assert [(each.device, each.due) for each in told.drops] == [(2, EPOCH + 6), (5, EPOCH + 9), (8, EPOCH + 12)]
    groups = {slot.device: slot.group for _, slot in schedule(plan_of(fleet_of()))}
    assert [each.group for each in told.drops] == [groups[2], groups[5], groups[8]]
    assert sorted(told.of("finished")) == told.of("started")


async def test_start_that_is_dropped_late_was_due_all_the_same(driven: Driven, autojump_clock: MockClock) -> None:
    driven.seconds = lambda _: 100.0
    await trio.sleep(20)
    told = await run(plan_of(fleet_of('[arrival]\nrate = "1/s"\nmax_under_way = 7')), first=5.0)

    assert [(each.device, each.due) for each in told.drops] == [(7, EPOCH + 12), (8, EPOCH + 13)]


async def test_limit_that_is_not_reached_drops_nothing(driven: Driven, autojump_clock: MockClock) -> None:
    driven.seconds = lambda _: 2.5
    told = await run(plan_of(fleet_of('[arrival]\nrate = "1/s"\nmax_under_way = 3')))

    assert (told.drops, len(told.of("started")), driven.most) == ([], 9, 3)


# --- minting ---


async def test_burst_at_the_beginning_is_minted_before_it_begins(
    driven: Driven, minted: Minted, autojump_clock: MockClock
) -> None:
    share = ShardRun(plan_of(many(500, "[arrival]\nburst = {}")), told := Told(), clock_now(), machine())
    await share.arm()
    before, told_before = len(minted.at), list(told.events)
    await share.run(trio.current_time())

    assert (before, told_before) == (500, [])
    assert (len(minted.at), len(driven.starts)) == (500, 500)


async def test_devices_are_minted_ahead_of_their_time_and_in_step_with_it(
    driven: Driven, minted: Minted, autojump_clock: MockClock
) -> None:
    await run(plan_of(many(100, '[arrival]\nrate = "10/s"')))

    ahead = {member: member / 10 - at for (_, member), at in minted.at.items()}
    assert len(ahead) == 100
    assert min(ahead.values()) >= 0
    assert all(each == pytest.approx(1.0, abs=0.101) for member, each in ahead.items() if member > 10)


@dataclass
class Prepared:
    """Counts what OpenSSL's objects are made of, and when."""

    at: list[float] = field(default_factory=list)
    unreadable: bool = False

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        prepare = Identity.prepare

        def counted(identity: Identity) -> object:
            self.at.append(trio.current_time())
            if self.unreadable:
                raise crypto.Error([("asn1 encoding routines", "", "unknown public key type")])
            return prepare(identity)

        monkeypatch.setattr(Identity, "prepare", counted)


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> Prepared:
    made = Prepared()
    made.patch(monkeypatch)
    return made


async def test_what_openssl_needs_of_a_device_is_made_when_it_is_minted(
    driven: Driven, minted: Minted, prepared: Prepared, autojump_clock: MockClock
) -> None:
    minted.wrong = frozenset({("g", 30)})
    await run(plan_of(many(100, '[arrival]\nrate = "10/s"')))

    assert prepared.at == [at for (_, member), at in minted.at.items() if member != 30]
    assert len(prepared.at) == len(driven.starts) == 99
    assert all(
        device.identity is not None and device.identity.prepare() is device.identity.prepare()
        for device in driven.devices.values()
    ), "it is there still when the device starts"


async def test_certificate_that_openssl_does_not_read_is_told_by_the_devices_own_try(
    minted: Minted, prepared: Prepared
) -> None:
    prepared.unreadable = True
    text = many(2).text + "[retry]\nfirst_delay = [0, 0]\nattempts = 2"
    with trio.fail_after(10):
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listener:
            doors = {"a": Door(endpoint="a.localhost", address=listener.socket.getsockname()[:2])}
            told = await run(plan_of(fleet_of(text=text), doors=doors), first=trio.current_time())

    assert told.failures == {}
    assert Counter(told.of("attempt")) == {0: 2, 1: 2}
    assert {event[1:] for event in told.events if event[0] == "finished"} == {(0, False), (1, False)}
    for attempt in told.attempts:
        assert attempt.failure is not None
        assert (attempt.failure.kind, attempt.failure.stage) == (FailureKind.TLS_PROTOCOL_ERROR, Stage.TLS)
        assert "unknown public key type" in attempt.failure.detail


async def test_no_more_wait_for_their_start_than_may(
    driven: Driven, minted: Minted, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MINT_AHEAD_MOST", 5)
    told = AtStarts(minted)
    share = ShardRun(plan_of(many(40, '[arrival]\nrate = "20/s"')), told, clock_now(), machine())
    await share.arm()
    armed = len(minted.at)
    await share.run(0.0)

    assert (armed, len(driven.starts)) == (5, 40)
    assert told.most_ahead == 5


async def test_closed_model_mints_no_more_than_can_start_at_once(
    driven: Driven, minted: Minted, autojump_clock: MockClock
) -> None:
    share = ShardRun(plan_of(many(500, '[arrival]\nmodel = "closed"\nconcurrency = 7')), Told(), clock_now(), machine())
    await share.arm()

    assert len(minted.at) == 7


async def test_device_that_cannot_be_minted_is_told_and_the_others_go_on(
    driven: Driven, minted: Minted, autojump_clock: MockClock
) -> None:
    minted.wrong = frozenset({("g", 0), ("g", 3)})
    told = await run(plan_of(many(5, '[arrival]\nrate = "1/s"')))

    assert told.events[0] == ("failed", 0, "g")
    assert told.failures == {0: "no identity 0 of g", 3: "no identity 3 of g"}
    assert driven.starts == {1: near_one(1), 2: near_one(2), 4: near_one(4)}
    assert (told.story(3), told.story(4)) == (["failed"], ["started", "finished"])


async def test_bundle_that_is_broken_is_one_devices_matter(
    driven: Driven, autojump_clock: MockClock, tmp_path: Path
) -> None:
    mint = minter(fleet_of(), material())
    for n in range(9):
        identity = mint("first", n)
        pem = private_key_pem(identity.key) + certificate_pem(identity.certificate)
        (tmp_path / f"{n}.pem").write_text(pem if n != 4 else "not a bundle")
    (tmp_path / "ca.crt").write_text(certificate_pem(material().authority.certificate))
    fleet = fleet_of(
        f'[devices]\nkeys = "imported"\nbundles = "{tmp_path}/*.pem"',
        f'[ca]\ncertificate = "{tmp_path}/ca.crt"\nkey = "ca.key"',
    )
    told = await run(plan_of(fleet))

    broken = next(slot.device for _, slot in schedule(plan_of(fleet)) if (slot.group, slot.member) == ("first", 4))
    assert list(told.failures) == [broken]
    assert "4.pem" in told.failures[broken]
    assert len(driven.starts) == 8


@pytest.mark.parametrize("name", ["robot#{index}", "robot+{index}"])
async def test_topic_that_cannot_be_published_to_is_one_devices_matter(
    name: str, driven: Driven, autojump_clock: MockClock
) -> None:
    """A client id may have signs that a topic may not, and comes out of a certificate that nobody has read before."""
    text = many(1).text.replace(
        "[groups.g]", f'[groups.odd]\ncount = 2\naccount = "a"\nclient_id = "{name}"\n[groups.g]'
    )
    fleet = fleet_of("[groups.odd.telemetry]", "[groups.g.telemetry]", "[session]\nhold = 5", text=text)
    told = await run(plan_of(fleet))

    assert set(told.failures.values()) == {
        f"topic '{name.format(index=index)}/telemetry' cannot be published to" for index in (0, 1)
    }
    assert len(driven.starts) == 1


async def test_client_id_that_mqtt_cannot_send_is_one_devices_matter(driven: Driven, autojump_clock: MockClock) -> None:
    long = many(1).text.replace(
        "[groups.g]", '[groups.odd]\ncount = 1\naccount = "a"\nclient_id = "{index:070000}"\n[groups.g]'
    )
    told = await run(plan_of(fleet_of(text=long)))

    assert [why.endswith("has more than 65535 bytes") for why in told.failures.values()] == [True]
    assert len(driven.starts) == 1


# --- minting in threads ---

RSA = '[devices]\nkeys = "random"\nkey_type = "rsa-2048"'


@dataclass
class Threads:
    """Takes the place of :func:`trio.to_thread.run_sync`: what is asked of it takes some seconds of trio's clock."""

    seconds: float = 0.0
    at_once: int = 0
    most: int = 0

    async def __call__(
        self, work: Callable[[Any], None], ready: Any, *, abandon_on_cancel: bool, limiter: trio.CapacityLimiter
    ) -> None:
        assert abandon_on_cancel
        async with limiter:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            await trio.sleep(self.seconds)
            work(ready)
            self.at_once -= 1


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Threads:
    """Two at a time."""
    made = Threads()
    monkeypatch.setattr(module, "_in_thread", made)
    monkeypatch.setattr(module, "processors", lambda: 3)
    return made


async def test_rsa_keys_are_made_ahead_in_threads_and_devices_start_in_their_order_when_due(
    driven: Driven, minted: Minted, threads: Threads, autojump_clock: MockClock
) -> None:
    threads.seconds = 0.15
    share = ShardRun(plan_of(many(100, '[arrival]\nrate = "10/s"', RSA)), told := Told(), clock_now(), machine())
    await share.arm()
    armed, first = len(minted.at), trio.current_time()
    await share.run(first)

    assert (armed, len(minted.at), threads.most) == (11, 100, 2)
    assert told.of("started") == list(range(100))
    assert list(driven.starts.values()) == near(*(first + n / 10 for n in range(100)))
    ahead = [first + member / 10 - at for (_, member), at in minted.at.items()]
    assert min(ahead) >= 0
    assert max(ahead[11:]) <= 1.0


async def test_devices_whose_keys_are_late_start_late_and_no_thread_is_idle(
    driven: Driven, minted: Minted, threads: Threads, autojump_clock: MockClock
) -> None:
    """Two at a time, of 3 s each, where four a second are due."""
    threads.seconds = 3.0
    share = ShardRun(plan_of(many(20, '[arrival]\nrate = "4/s"', RSA)), told := Told(), clock_now(), machine())
    await share.arm()
    first = trio.current_time()
    await share.run(first)

    assert told.of("started") == list(range(20))
    assert [driven.dues[n] - first for n in range(20)] == near(*(n / 4 for n in range(20)))
    # those of the first second are there; one thread begins the next when the first has started, one after the second
    assert [driven.starts[n] - first for n in range(5)] == near(0, 0.25, 0.5, 0.75, 1)
    assert [driven.starts[5 + n] - first for n in range(15)] == near(*(3 * (1 + n // 2) + n % 2 / 4 for n in range(15)))


async def test_device_whose_rsa_key_cannot_be_had_is_told_and_the_others_go_on(
    driven: Driven, minted: Minted, threads: Threads, autojump_clock: MockClock
) -> None:
    minted.wrong = frozenset({("g", 0), ("g", 3)})
    told = await run(plan_of(many(5, '[arrival]\nrate = "1/s"', RSA)))

    assert told.failures == {0: "no identity 0 of g", 3: "no identity 3 of g"}
    assert driven.starts == {1: near_one(1), 2: near_one(2), 4: near_one(4)}


async def test_no_more_rsa_keys_wait_than_may(
    driven: Driven, minted: Minted, threads: Threads, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MINT_AHEAD_MOST", 5)
    threads.seconds = 0.1
    told = AtStarts(minted)
    share = ShardRun(plan_of(many(40, "[arrival]\nburst = {}", RSA)), told, clock_now(), machine())
    await share.arm()
    armed = len(minted.at)
    await share.run(trio.current_time())

    assert (armed, len(driven.starts)) == (5, 40)
    assert told.most_ahead == 5


async def test_closed_model_makes_no_more_rsa_keys_than_can_start_at_once(
    driven: Driven, minted: Minted, threads: Threads, autojump_clock: MockClock
) -> None:
    driven.seconds = lambda _: 10.0
    plan = plan_of(many(50, '[arrival]\nmodel = "closed"\nconcurrency = 4', RSA))
    await run(plan, cancel_at=5.0)

    assert (len(driven.starts), driven.most) == (4, 4)
    assert len(minted.at) == 4 + 4, "those that have a place, and as many again"


@pytest.mark.parametrize(
    ("key_type", "processors", "parts", "count"),
    [
        ("ec-p256", 8, 1, 0),
        ("ec-p384", 8, 1, 0),
        ("rsa-2048", 8, 1, 7),
        ("rsa-4096", 8, 2, 3),
        ("rsa-2048", 8, 8, 1),
        ("rsa-2048", 1, 4, 1),
    ],
)
def test_threads_are_for_rsa_keys_and_leave_each_loop_its_core(
    key_type: str, processors: int, parts: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "processors", lambda: processors)
    fleet = many(100, f'[devices]\nkeys = "random"\nkey_type = "{key_type}"')

    assert [module.key_threads(plan_of(fleet, shard=shard)) for shard in split(100, parts)] == [count] * parts
    assert module.key_threads(plan_of(many(100))) == 0, "derived"


async def test_loop_goes_on_while_an_rsa_key_is_made(driven: Driven, monkeypatch: pytest.MonkeyPatch) -> None:
    """In real threads, each of which waits for a turn of the loop: were they the loop, it would never come."""
    turn = threading.Event()

    def mint(group: str, member: int) -> Identity:
        turn.clear()
        assert turn.wait(10), "the loop stands"
        return identity_of()

    async def turning() -> None:
        while True:
            turn.set()
            await trio.sleep(0.001)

    monkeypatch.setattr(module, "minter", lambda fleet, material: mint)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(turning)
            # the third is not due at the beginning
            told = await run(plan_of(many(3, '[arrival]\nrate = "1/s"', RSA)), first=trio.current_time() - 1.9)
            nursery.cancel_scope.cancel()

    assert told.of("started") == [0, 1, 2]


async def test_cancelled_run_does_not_wait_for_an_rsa_key(driven: Driven, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, let_go, ended, loop = trio.Event(), threading.Event(), threading.Event(), trio.lowlevel.current_trio_token()

    def mint(group: str, member: int) -> Identity:
        loop.run_sync_soon(begun.set)
        let_go.wait(20)
        ended.set()
        return identity_of()

    monkeypatch.setattr(module, "minter", lambda fleet, material: mint)
    share = ShardRun(plan_of(many(1, RSA)), Told(), clock_now(), machine())
    try:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(share.arm)
                await begun.wait()
                nursery.cancel_scope.cancel()

        assert not ended.is_set()
    finally:
        let_go.set()
    assert ended.wait(10)


async def test_rsa_identity_made_in_a_thread_is_ready_for_its_connection(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Minter, key and OpenSSL's objects as they are."""
    with trio.fail_after(30):
        told = await run(plan_of(many(2, "[arrival]\nburst = {}", RSA)), first=trio.current_time())

    assert told.failures == {}
    for device in driven.devices.values():
        assert device.identity is not None
        assert device.identity._pair is not None
        assert isinstance(device.identity.key, RSAPrivateKey)
        device.identity.certificate.verify_directly_issued_by(material().authority.certificate)


# --- what a device is given ---


async def test_device_is_told_from_its_group_and_its_certificate(driven: Driven, autojump_clock: MockClock) -> None:
    told = await run(plan_of(fleet_of("[mqtt]\nport = 443"), sources=("127.0.0.2", "127.0.0.3")))

    slots = {slot.device: slot for _, slot in schedule(plan_of(fleet_of()))}
    for started in told.devices:
        device, slot = driven.devices[started.number], slots[started.number]
        assert (started.group, started.member) == (slot.group, slot.member)
        index = slot.member + (6 if slot.group == "second" else 0)
        assert device.identity is not None
        assert device.identity.certificate_id == started.certificate_id
        assert device.client_id == started.client_id == f"walk-{index:06d}"
        assert device.verify_name == {"first": "a", "second": "b"}[slot.group] + "-ats.iot.eu-west-1.localhost"
        assert device.server_name == (device.verify_name if slot.group == "first" else None)
        assert device.telemetry is None
    assert {device.source for device in driven.devices.values()} == {"127.0.0.2", "127.0.0.3"}


async def test_devices_publish_at_moments_of_their_own_that_are_the_same_in_every_share(
    driven: Driven, autojump_clock: MockClock
) -> None:
    fleet = fleet_of("[groups.first.telemetry]\nevery = 20\nqos = 0\nbytes = 9", "[session]\nhold = 60")
    await run(plan_of(fleet))
    first = {number: device.telemetry for number, device in driven.devices.items()}
    for shard in split(9, 2):
        await run(plan_of(fleet, shard=shard))
    again = {number: device.telemetry for number, device in driven.devices.items()}

    assert again == first
    given_one = [each for each in first.values() if each is not None]
    assert len(given_one) == 6
    assert all(0 <= each.offset < 20 and (each.every, each.qos, each.size) == (20, 0, 9) for each in given_one)
    assert len({each.offset for each in given_one}) == 6
    assert {each.topic for each in given_one} == {f"walk-{n:06d}/telemetry" for n in range(6)}


async def test_device_that_does_not_stay_publishes_nothing(driven: Driven, autojump_clock: MockClock) -> None:
    fleet = fleet_of("[groups.first.telemetry]", "[session]\nhold = 60")
    await run(plan_of(fleet, hold=0.0))

    assert {device.telemetry for device in driven.devices.values()} == {None}


# --- what is told, with real devices on a net that does as it is told ---


LIVES = st.lists(
    st.just(refused())
    | st.builds(Session, lost_after=st.none() | st.floats(0.1, 30), answers=st.lists(st.floats(0, 20), max_size=3)),
    max_size=4,
)


def check_order(told: Told) -> None:
    """Of each device: started first, its tries in their order, its end last and once; live before over."""
    for number in {event[1] for event in told.events if event[0] not in ("dropped", "failed")}:
        events = [event for event in told.events if event[1] == number]
        words = [event[0] for event in events]
        assert words[0] == "started"
        assert words.count("started") == 1
        assert words.count("finished") <= 1
        assert "finished" not in words[:-1]
        tries = [event[2] for event in events if event[0] in ("live", "attempt")]
        assert tries == sorted(tries)
        over = [event[2] for event in events if event[0] == "attempt"]
        assert over == list(range(1, len(over) + 1))
        for event in events:
            if event[0] == "live":
                assert ("attempt", number, event[2]) not in events[: events.index(event)]


def test_devices_are_told_in_order_whatever_becomes_of_them_and_whenever_they_are_cut_short() -> None:
    @given(
        lives=st.lists(LIVES, min_size=9, max_size=9),
        cancel_at=st.none() | st.floats(0.1, 60),
        arrival=st.sampled_from(
            ['rate = "5/s"', 'rate = "5/s"\nmax_under_way = 2', 'model = "closed"\nconcurrency = 2', "burst = {}"]
        ),
    )
    @settings(max_examples=60)
    def holds(lives: list[list[Failure | Session]], cancel_at: float | None, arrival: str) -> None:
        fleet = fleet_of(f"[arrival]\n{arrival}", "[groups.first.telemetry]", "[session]\nhold = 25")

        async def main() -> Told:
            return await run(plan_of(fleet), cancel_at=cancel_at)

        net = FakeNet(lambda name: lives[int(name.rpartition("-")[2])])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(device_module, "open_mqtt", net)
            told = trio.run(main, clock=MockClock(autojump_threshold=0))

        check_order(told)
        if cancel_at is None:
            assert sorted(told.of("finished")) == sorted(told.of("started"))
            assert len(told.of("started")) + len(told.of("dropped")) == 9
            assert sum(each.starts for each in told.samples) == len(told.of("started"))

    holds()


async def test_run_that_is_cut_short_tells_those_that_are_connected_and_finishes_none_of_them(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    fleet = fleet_of('[arrival]\nrate = "1/s"', "[groups.first.telemetry]\nevery = 1", "[session]\nhold = 6")
    net = FakeNet(lambda name: [refused()] * (name == "walk-000001"))
    monkeypatch.setattr(device_module, "open_mqtt", net)
    told = await run(plan_of(fleet), cancel_at=7.25)

    assert told.of("started") == list(range(8))
    assert told.of("finished") == [0]
    cut = {each.device: each for each in told.lives if each.end == EPOCH + 7.25}
    assert sorted(cut) == [1, 2, 3, 4, 5, 6]  # 7 was not accepted yet
    publishing = [each for each in cut.values() if each.published is not None]
    assert publishing
    assert sum(each.published or 0 for each in publishing) == sum(len(client.messages) for client in net.clients) - sum(
        each.published or 0 for each in told.attempts
    )


async def test_devices_that_stay_come_back_more_often_than_they_try_to_be_accepted(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """A server that ends all connections six times, of devices that try five times: the fleet is not lost to it."""
    text = fleet_of().text.replace("attempts = 3", "attempts = 5\nstable_after = 4")
    fleet = fleet_of("[arrival]\nburst = {}", "[session]\nhold = 60", text=text)
    net = FakeNet(lambda _: [refused(), *[Session(lost_after=5)] * 6])
    monkeypatch.setattr(device_module, "open_mqtt", net)
    told = await run(plan_of(fleet))

    assert {event for event in told.events if event[0] == "finished"} == {("finished", n, True) for n in range(9)}
    assert Counter(told.of("attempt")) == dict.fromkeys(range(9), 8)
    ends = [each.end - EPOCH for each in told.attempts if each.number == 8]
    assert ends == pytest.approx([3 + 60] * 9, abs=1e-6)


async def test_devices_that_are_put_out_at_once_whenever_they_come_give_up(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    fleet = fleet_of("[arrival]\nburst = {}", "[session]\nhold = 600")
    net = FakeNet(lambda _: [refused(), *[Session(lost_after=5)] * 90])
    monkeypatch.setattr(device_module, "open_mqtt", net)
    told = await run(plan_of(fleet))

    assert {event for event in told.events if event[0] == "finished"} == {("finished", n, False) for n in range(9)}
    assert Counter(told.of("attempt")) == dict.fromkeys(range(9), 1 + 3)


async def test_what_the_process_used_is_told_to_its_last_moment(driven: Driven, autojump_clock: MockClock) -> None:
    driven.seconds = lambda _: 0.01
    told = await run(plan_of(fleet_of('[arrival]\nrate = "3/s"'), process="worker 3"), first=0.0)

    assert sum(each.starts for each in told.samples) == 9
    assert sum(each.wall for each in told.samples) == pytest.approx(8 / 3 + 0.01)
    assert sum(each.cpu for each in told.samples) == pytest.approx((8 / 3 + 0.01) / 2)
    assert {each.process for each in told.samples} == {"worker 3"}


async def test_mistake_of_ours_ends_the_run(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    async def broken(*_: object) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(module, "drive", broken)
    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True, allow_unwrapped=True):
        await run(plan_of(many(1)))


async def test_nothing_is_kept_of_a_device_that_has_come_to_its_end(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async def short(*_: object) -> bool:
        await trio.sleep(0.1)
        return True

    def alive() -> int:
        return sum(isinstance(each, Device) for each in gc.get_objects())

    monkeypatch.setattr(module, "drive", short)
    share = ShardRun(plan_of(many(200, '[arrival]\nrate = "100/s"')), Told(), clock_now(), machine())
    gc.collect()
    others = alive()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(share.run, 0.0)
        await trio.sleep(1.505)
        gc.collect()
        assert 9 <= alive() - others <= 11  # of the 150 that were started
    gc.collect()

    assert alive() == others
