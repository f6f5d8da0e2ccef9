"""What a record tells of its devices, and how many of those that look alike are looked at."""

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from devicesim.cloud.account import AccountAccess
from devicesim.diagnosis.evidence import AccountEvidence
from devicesim.errors import RecordError
from devicesim.fleet.diagnose import ControlPlanes, control_planes, diagnose_devices, diagnose_planned
from devicesim.fleet.identities import Material, client_id, minter
from devicesim.fleet.recorded import RecordedRun, recorded_fleet
from devicesim.fleet.spec import Fleet, parse_fleet
from devicesim.outcome import Attempt, DeviceOutcome, Failure, FailureKind, Holding, Stage
from devicesim.pki.authority import Authority, new_shared_authority
from devicesim.pki.profile import KeyType, Profile
from devicesim.record.facts import AccountRecord, DeviceRecord, GroupRecord, Note, Phase, RunFacts
from devicesim.record.store import RunReader, RunWriter
from devicesim.rules import Expectation, Row

START = 1_790_000_000.0
DROP = Failure(kind=FailureKind.CLOSED_BEFORE_CONNACK, stage=Stage.CONNACK)
LOST = Failure(kind=FailureKind.CLOSED_AFTER_CONNACK, stage=Stage.SESSION)
ENDPOINT = "a1-ats.iot.us-east-1.localhost"
FLEET = """
version = 1
name = "robots"
[accounts.a]
id = "111111111111"
ca_mode = "SNI_ONLY"
provisioning = "JITR"
[groups.g]
count = 4
account = "a"
verify_name = "iot.example.com"
[groups.h]
count = 2
account = "a"
sni = "none"
client_id = "same"
[retry]
attempts = 3
[mqtt]
version = "5"
port = 443
[tls]
alpn = ["x-amzn-mqtt-ca"]
send_chain = false
"""
EXPECTATION = Expectation(
    outcome=DeviceOutcome.PROVISIONED,
    account="a",
    mode="SNI_ONLY",
    thing=None,
    first_try="closed_before_connack",
    row=Row(id="x", says="x", mark="D", source="x"),
)


def authority(*, days_before: int = 1) -> Authority:
    """Valid for nine days."""
    begin = datetime.fromtimestamp(START, UTC) - timedelta(days=days_before)
    return new_shared_authority("CA", KeyType.EC_P256, now=begin, validity=timedelta(days=9))


@pytest.fixture(scope="module")
def material() -> Material:
    return Material(authority=authority(), secret=b"s" * 32)


@pytest.fixture
def fleet() -> Fleet:
    return parse_fleet(FLEET, Path("robots.toml"))


def attempts(number: int, seen: Sequence[Failure | None], start: float = START) -> list[Attempt]:
    """Tries a second apart, each of half a second; an accepted one of two seconds."""
    made = []
    for n, failure in enumerate(seen, 1):
        accepted = failure is None or failure.stage is Stage.SESSION
        begin = start + n - 1
        made.append(
            Attempt(
                device=number,
                number=n,
                account="a",
                sni=ENDPOINT,
                intended_start=begin,
                start=begin,
                end=begin + (2.5 if accepted else 0.5),
                reached={
                    Stage.TCP: 0.1,
                    Stage.TLS: 0.2,
                    Stage.CONNECT: 0.3,
                    **({Stage.CONNACK: 0.5} if accepted else {}),
                },
                failure=failure,
                tls_version="TLSv1.3",
                cipher="c",
                alert=None,
                connack_code=0 if accepted else None,
            )
        )
    return made


class Record:
    """Writes records of the fleet above."""

    def __init__(self, path: Path, fleet: Fleet, material: Material) -> None:
        self.path = path
        self.fleet = fleet
        self.material = material

    def write(
        self,
        tries: Sequence[Sequence[Failure | None]],
        *,
        held: Sequence[str | None] | None = None,
        errors: Sequence[str] = (),
        groups: bool = True,
        text: str = FLEET,
    ) -> None:
        """A device of group ``g`` for each of the first four ``tries``, of ``h`` for the others."""
        facts = RunFacts(
            fleet="robots", fleet_file=text, version="0.0.1", target="emulator", started_at=START, rate=50.0
        )
        self.path.unlink(missing_ok=True)
        with RunWriter.create(self.path, facts) as writer:
            for error in errors:
                writer.add_note(Note(at=START, kind="error", text=error))
            if groups:
                self._write(writer, tries, held or [None] * len(tries))

    def _write(self, writer: RunWriter, tries: Sequence[Sequence[Failure | None]], held: Sequence[str | None]) -> None:
        account = AccountRecord(
            name="a",
            account_id="1" * 12,
            region="us-east-1",
            endpoint=ENDPOINT,
            ca_mode="SNI_ONLY",
            provisioning="JITR",
        )
        writer.add_account(account, now=START)
        for name, count, sni in (("g", 4, ENDPOINT), ("h", 2, None)):
            group = GroupRecord(
                name=name,
                count=count,
                account="a",
                sni_setting="endpoint" if sni else "none",
                sni=sni,
                chain_sent=False,
                expectation=EXPECTATION,
                user=None,
            )
            writer.add_group(group, now=START)
        mint = minter(self.fleet, self.material)
        holdings = []
        for number, seen in enumerate(tries):
            name, member = ("g", number) if number < 4 else ("h", number - 4)
            identity = mint(name, member)
            device = DeviceRecord(
                number=number,
                index=number,
                group=name,
                client_id=client_id(self.fleet, name, member, identity),
                certificate_id=identity.certificate_id,
                expectation=None,
            )
            writer.add_device(device, now=START)
            for attempt in attempts(number, seen):
                writer.add_attempt(attempt, now=START)
            status = held[number]
            if status is not None:
                holdings.append(
                    Holding(account="a", certificate_id=identity.certificate_id, status=status, mode="SNI_ONLY")
                )
        writer.add_holdings(Phase.AFTER, "a", holdings, now=START)

    def read(self, **more: Any) -> RecordedRun:
        with RunReader(self.path) as reader:
            return RecordedRun(reader, self.fleet, more.pop("material", self.material), **more)


@pytest.fixture
def record(tmp_path: Path, fleet: Fleet, material: Material) -> Record:
    return Record(tmp_path / "run.sqlite", fleet, material)


def test_a_certificate_is_minted_again_and_only_if_it_is_the_one_recorded(record: Record) -> None:
    record.write([[DROP]])
    run = record.read()
    leaf = run.leaf(0)

    assert leaf is not None
    evidence = run.evidence(0, leaf, now=START + 60)
    assert evidence.leaf is not None
    assert evidence.leaf.certificate_id == evidence.certificate_id == run.devices[0].certificate_id
    assert evidence.leaf.subject == {"CommonName": "robots-000000"}
    assert run.question(0, leaf).tries == ((START, START + 0.5),)
    assert record.read(material=None).leaf(0) is None
    assert record.read(material=Material(authority=authority(), secret=b"t" * 32)).leaf(0) is None


def test_how_a_device_connects_is_told_by_the_fleet_file(record: Record) -> None:
    record.write([[DROP]] * 5)
    run = record.read(address=lambda account, endpoint: (f"{account}.{endpoint}", 1))

    first, unnamed = (run.evidence(number, None, now=START).wire for number in (0, 4))

    assert (first.port, first.alpn, first.mqtt_version) == (443, ("x-amzn-mqtt-ca",), "5")
    assert (first.tries_allowed, first.chain_sent, first.foreign_roots, first.assumed) == (3, False, False, False)
    assert (first.server_name, first.verify_name) == (ENDPOINT, "iot.example.com")
    assert first.address == (f"a.{ENDPOINT}", 1)
    assert (unnamed.server_name, unnamed.verify_name, unnamed.client_id) == (None, ENDPOINT, "same")


def test_what_the_rest_of_the_run_says_is_counted(record: Record) -> None:
    record.write([[DROP, None], [DROP], [DROP, DROP], [LOST], [DROP], [None]], errors=["no"])
    run = record.read()

    refused, same = (run.evidence(number, None, now=START).fleet for number in (1, 4))

    assert (refused.peers, refused.peers_accepted) == (3, 1)
    assert (refused.first_tries_per_second, refused.tries_per_second) == (6.0, 6.0)
    assert (refused.same_client_id, refused.errors) == (0, ("no",))
    assert (same.same_client_id, same.peers, same.peers_accepted) == (1, 1, 1)
    assert [run.accepted(number) for number in range(6)] == [True, False, False, False, False, True]


def test_a_device_that_is_put_out_time_and_again_is_not_connected_by_chance(record: Record) -> None:
    record.write([[LOST, None], [LOST, LOST, None], [LOST, DROP, LOST, None], [LOST, LOST, DROP], [LOST, LOST]])
    run = record.read(held=True)

    assert [run.accepted(number) for number in range(5)] == [True, False, False, False, False]
    seen = [run.evidence(number, None, now=START).attempts for number in range(5)]
    assert [len(each) for each in seen] == [2, 2, 3, 3, 2]
    assert [None if each[-1].failure is None else each[-1].failure.kind for each in seen] == [
        None,
        *[LOST.kind] * 2,
        DROP.kind,
        LOST.kind,
    ]
    assert [run.tries(number) for number in range(5)] == [2, 3, 4, 3, 2]
    assert run.alike([0, 1, 2]) == [[0], [1, 2]]


@pytest.mark.parametrize(("stable_after", "accepted"), [("1s", True), ("10s", False)])
def test_a_device_whose_last_connection_was_stable_is_connected_however_many_it_lost(
    tmp_path: Path, material: Material, stable_after: str, accepted: bool
) -> None:
    text = FLEET.replace("[retry]\n", f'[retry]\nstable_after = "{stable_after}"\n')
    record = Record(tmp_path / "run.sqlite", parse_fleet(text, Path("robots.toml")), material)
    record.write([[LOST, LOST, LOST, None], [LOST, LOST, LOST]], text=text)
    run = record.read(held=True)

    assert [run.accepted(number) for number in range(2)] == [accepted, False]
    assert len(run.evidence(0, None, now=START).attempts) == (4 if accepted else 3)


def test_how_long_a_connection_was_watched_is_told_where_it_was(record: Record) -> None:
    record.write([[None], [DROP]])

    assert record.read(held=True).evidence(0, None, now=START).held_open == pytest.approx(2.0)
    assert record.read(held=True).evidence(1, None, now=START).held_open is None
    assert record.read(held=False).evidence(0, None, now=START).held_open is None


def test_accounts_that_nobody_set_up_are_as_good_as_not_asked(record: Record) -> None:
    record.write([[DROP]], held=["INACTIVE"])

    (known,) = record.read().evidence(0, None, now=START).accounts
    (unknown,) = record.read(prepared=False).evidence(0, None, now=START).accounts

    assert known.cas
    assert known.record is not None
    assert (unknown.cas, unknown.record_asked, unknown.record) == (None, False, None)
    assert (unknown.endpoint, unknown.planned_mode) == (ENDPOINT, "SNI_ONLY")


def test_devices_look_alike_by_what_they_saw_and_what_is_held_of_them(record: Record) -> None:
    record.write(
        [[DROP, DROP], [DROP, DROP], [DROP, DROP], [DROP], [DROP], [DROP]],
        held=["INACTIVE", None, "INACTIVE", None, None, None],
    )

    assert record.read().alike(range(6)) == [[0, 2], [1], [3], [4, 5]]
    assert record.read().alike([2, 1]) == [[2], [1]]


async def test_of_devices_that_look_alike_a_few_are_looked_at_and_the_rest_told_so(record: Record) -> None:
    record.write([[DROP, DROP]] * 4 + [[None]], held=["INACTIVE"] * 4 + [None])
    run = record.read()

    few = await diagnose_devices(run, range(5), None, clock=lambda: START + 60, examples=2)
    every = await diagnose_devices(run, [3, 0], None, clock=lambda: START + 60, examples=None)

    first = "device 0 (robots-000000)"
    assert [each.like for each in few] == ["", "", first, first, ""]
    assert few[3].device == "device 3 (robots-000003)"
    assert few[3].findings == few[0].findings != ()
    assert [each.connected for each in few] == [False, False, False, False, True]
    assert [(each.device, each.like) for each in every] == [("device 3 (robots-000003)", ""), (first, "")]


async def test_a_record_is_read_as_of_its_own_time(record: Record) -> None:
    """That a certificate was pending when the run ended does not say that it has been ever since."""
    record.write([[DROP, DROP]], held=["PENDING_ACTIVATION"])
    run = record.read()
    asked: Any = {"a": _Inspector(run.evidence(0, None, now=START).accounts[0])}

    (then,) = await diagnose_devices(run, [0], None, clock=lambda: START + 86_400)
    (now,) = await diagnose_devices(run, [0], ControlPlanes(asked, {}), clock=lambda: START + 86_400)

    assert run.seen_at == START + 1.5
    assert "PENDING_ACTIVATION in a for" not in repr(then)
    assert "PENDING_ACTIVATION in a for 86400 s" in repr(now)


async def test_a_run_whose_setup_failed_is_told_by_its_groups(record: Record) -> None:
    error = "account 'a' (111111111111, us-east-1): register_ca_certificate refused: CertificateValidationException: no"
    record.write([], errors=[error], groups=False)
    run = record.read()

    told = diagnose_planned(run, ["g", "h"], clock=lambda: START)

    assert not run.was_set_up
    assert [(each.device, each.group, each.devices) for each in told] == [("4 devices", "g", 4), ("2 devices", "h", 2)]
    assert {each.findings[0].cause.number for each in told} == {10}
    assert {each.seen for each in told} == {f"never started: the run ended before its accounts were set up: {error}"}


def test_the_server_name_of_a_run_whose_setup_failed_is_read_as_the_fleet_file_means_it(record: Record) -> None:
    other = FLEET.replace("[groups.g]", '[accounts.b]\nid = "222222222222"\nca_mode = "none"\n[groups.g]').replace(
        'sni = "none"', 'sni = "other:b"'
    )
    record.fleet = parse_fleet(other, Path("robots.toml"))
    record.write([], groups=False, text=other)

    g, h = diagnose_planned(record.read(), ["g", "h"], clock=lambda: START)

    assert g.findings == ()
    assert [each.text for each in h.findings[0].supporting] == [
        "the server name is the endpoint of b; a is dialled",
    ]


def test_a_fleet_file_of_another_version_is_told(record: Record, fleet: Fleet) -> None:
    record.write([], text=FLEET.replace("alpn", "unknown_key"))
    with RunReader(record.path) as reader, pytest.raises(RecordError, match="not one that this devicesim") as told:
        recorded_fleet(reader)
    assert told.value.hint == "read the record with devicesim 0.0.1, which made it"

    record.write([])
    with RunReader(record.path) as reader:
        assert recorded_fleet(reader).file == fleet.file


class _Inspector:
    """Says what it is told to."""

    def __init__(self, said: AccountEvidence, leaf: Any = None) -> None:
        self._said, self._leaf = said, leaf

    async def inspect(self, _question: object) -> AccountEvidence:
        return self._said

    async def leaf(self, _certificate_id: str) -> Any:
        return self._leaf


async def test_what_an_account_says_counts_and_what_it_does_not_say_stays(record: Record) -> None:
    record.write([[DROP]], held=["PENDING_ACTIVATION"])
    run = record.read()
    evidence, question = run.evidence(0, None, now=START), run.question(0, None)
    (known,) = evidence.accounts
    nothing = replace(known, cas=None, record_asked=False, record=None, clock_offset=3.0, not_asked=("no",))
    something = replace(known, cas=(), record=None, endpoint=None)

    async def joined(said: AccountEvidence | None, refused: dict[str, str]) -> AccountEvidence:
        inspectors: Any = {} if said is None else {"a": _Inspector(said)}
        (account,) = (await ControlPlanes(inspectors, refused).ask(evidence, question)).accounts
        return account

    assert await joined(something, {}) == replace(something, endpoint=ENDPOINT)
    assert await joined(nothing, {}) == replace(known, clock_offset=3.0, not_asked=("no",))
    assert await joined(None, {"a": "no profile"}) == replace(known, not_asked=("no profile",))
    assert await joined(None, {}) == known


async def test_a_certificate_that_cannot_be_minted_is_asked_of_the_accounts(record: Record) -> None:
    """So that one that has expired is found out without the CA's key."""
    record.write([[DROP]])
    run = record.read(material=None)
    (known,) = run.evidence(0, None, now=START).accounts
    expired = authority(days_before=30).mint(0, secret=b"s" * 32, profile=Profile(names={"fleet": "f"})).certificate
    nobody: Any = {"a": _Inspector(known)}
    holder: Any = {"a": _Inspector(known), "b": _Inspector(known, expired)}

    (without,) = await diagnose_devices(run, [0], ControlPlanes(nobody, {}), clock=lambda: START + 1)
    (with_it,) = await diagnose_devices(run, [0], ControlPlanes(holder, {}), clock=lambda: START + 1)

    assert 13 not in [each.cause.number for each in without.findings]
    assert with_it.findings[0].cause.number == 13


async def test_a_profile_that_does_not_exist_ends_no_diagnosis(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    record.write([[DROP]])
    run = record.read()
    access = AccountAccess(name="a", account_id="1" * 12, region="us-east-1", profile="nobody")

    async with control_planes({"a": access}, ca_id=None, since=START, until=START, clock=time.time) as planes:
        evidence = await planes.ask(run.evidence(0, None, now=START), run.question(0, None))

    (line,) = evidence.accounts[0].not_asked
    assert line.startswith("nothing could be asked: ")
    assert "nobody" in line
