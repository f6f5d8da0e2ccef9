"""What ``--state`` keeps: written before it is told, read back the same, refused when it is not understood."""

import dataclasses
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from devicesim.emulator.codec import codec_of
from devicesim.emulator.core import Core
from devicesim.emulator.state.journal import KeptPartition, shapes
from devicesim.emulator.state.partition import Partition
from devicesim.emulator.state.records import AutoRegistrationStatus, CACertificateStatus, CertificateStatus
from devicesim.emulator.store import VERSION, Store
from devicesim.errors import StateError
from devicesim.pki.authority import Authority, new_shared_authority
from devicesim.pki.identity import certificate_pem
from devicesim.pki.profile import KeyType
from tests.emulator_support import ALLOW_ALL, A, B, World, device, template


def new_root(days: int = 4000) -> Authority:
    return new_shared_authority("root", KeyType.EC_P256, now=datetime.now(UTC), validity=timedelta(days=days))


def open_store(directory: Path, *, days: int = 4000) -> Store:
    usable_until = datetime.now(UTC) + timedelta(days=366)
    return Store.open(directory, new_root=lambda: new_root(days), usable_until=usable_until)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state"


class Kept:
    """Worlds on one directory, one after the other."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store: Store | None = None

    def start(self) -> World:
        """A world with what was kept; the one before it is dropped without a word, as ``kill -9`` would."""
        self.crash()
        self.store = open_store(self.directory)
        world = World()
        self.store.attach(world.core)
        return world

    def crash(self) -> None:
        if self.store is not None:
            os.close(self.store._lock)
            self.store._database.close()
            self.store = None


@pytest.fixture
def kept(directory: Path) -> Iterator[Kept]:
    made = Kept(directory)
    yield made
    made.crash()


def contents(partition: Partition) -> dict[str, object]:
    """Every field, with the order of every dict; a record by its text, for parsed policies compare by identity."""

    def plain(value: Any) -> object:
        if isinstance(value, dict):
            return [(key, plain(each)) for key, each in value.items() if each != {}]
        return repr(value)

    return {each.name: plain(getattr(partition, each.name)) for each in dataclasses.fields(partition)}


def fill(world: World) -> None:
    """Something in most collections, with changes and removals in between."""
    registry = world.registry
    first, second = world.account(A), world.account(B, "eu-west-1")
    world.register_ca(first, mode="DEFAULT", template_body=template())
    registry.cas.update(first, next(iter(first.cas)), auto_registration=AutoRegistrationStatus.ENABLE)
    world.register_ca(second, mode="SNI_ONLY")
    for index in range(3):
        world.client(index, first.endpoint).connect(f"robot-{index}")
    world.advance(3)
    world.register_leaf(second, device(7), "INACTIVE", policy=ALLOW_ALL)
    registry.thing_types.create(first, "robot")
    registry.thing_groups.create(first, "fleet")
    registry.things.create(first, "spare", thing_type_name="robot", attributes={"wheel": "4"})
    registry.thing_groups.add_thing(first, "fleet", "spare")
    registry.thing_groups.add_thing(first, "fleet", "robot-000001")
    registry.tags.tag(first, first.arn("thinggroup", "fleet"), [("a", "1"), ("b", "2")])
    registry.tags.untag(first, first.arn("thinggroup", "fleet"), ["a"])
    world.update(first, device(2), "INACTIVE")
    principal = first.certificate_arn(device(2).certificate_id)
    registry.things.detach_principal(first, "robot-000002", principal)
    registry.certificates.delete(first, device(2).certificate_id, force=True)
    registry.things.delete(first, "robot-000002")
    first.event_configurations["CERTIFICATE"] = True


def test_everything_is_there_after_a_crash_and_in_the_same_order(kept: Kept) -> None:
    world = kept.start()
    fill(world)
    world.plane.commit()
    before = {(each.account_id, each.region): contents(each) for each in world.registry.partitions()}

    after = kept.start()

    assert {(each.account_id, each.region): contents(each) for each in after.registry.partitions()} == before


def test_what_the_registry_knows_across_accounts_is_known_again(kept: Kept) -> None:
    world = kept.start()
    fill(world)
    world.plane.commit()

    after = kept.start()
    first = after.account(A)
    ca_id = next(iter(first.cas))
    assert after.registry.default_ca_holders("us-east-1", ca_id) is first
    assert after.registry.default_certificate_holder("us-east-1", device(0).certificate_id) is first
    assert after.registry.resolve_server_name(first.endpoint) is first
    after.client(0, first.endpoint).connected("robot-000000")
    after.client(1, None).connected("robot-000001")


def test_changes_after_a_start_are_kept_by_the_next(kept: Kept) -> None:
    world = kept.start()
    fill(world)
    world.plane.commit()
    again = kept.start()
    again.update(again.account(A), device(0), "REVOKED")
    again.registry.cas.update(again.account(A), next(iter(again.account(A).cas)), status=CACertificateStatus.INACTIVE)
    again.plane.commit()

    third = kept.start()

    assert third.status(third.account(A), device(0)) == "REVOKED"
    assert next(iter(third.account(A).cas.values())).status is CACertificateStatus.INACTIVE


def test_nothing_is_written_of_what_was_not_committed(kept: Kept) -> None:
    world = kept.start()
    world.account(A)
    world.registry.things.create(world.account(A), "kept")
    world.plane.commit()
    world.registry.things.create(world.account(A), "lost")

    assert list(kept.start().account(A).things) == ["kept"]


def test_a_reset_is_kept_too_and_the_forgotten_accounts_cannot_come_back(kept: Kept) -> None:
    world = kept.start()
    fill(world)
    world.plane.commit()
    forgotten = world.account(A)
    world.core.reset()
    world.registry.things.create(world.account(A), "new")
    forgotten.things["ghost"] = world.account(A).things["new"]
    world.plane.commit()

    after = kept.start()

    assert [each.account_id for each in after.registry.partitions()] == [A]
    assert list(after.account(A).things) == ["new"]
    assert not after.account(A).certificates


def test_a_commit_with_nothing_to_write_does_not_touch_the_file(kept: Kept, directory: Path) -> None:
    world = kept.start()
    world.registry.things.create(world.account(A), "t")
    world.plane.commit()
    log = directory / "state.sqlite3-wal"
    before = log.stat().st_size

    for _ in range(100):
        world.plane.commit()

    assert log.stat().st_size == before > 0


def test_a_change_costs_the_same_however_much_there_is(kept: Kept) -> None:
    world = kept.start()
    account = world.account(A)
    world.register_ca(account, mode="SNI_ONLY")
    world.register_leaf(account, device(0))
    (record,) = account.certificates.values()
    for number in range(20_000):
        account.put_certificate(dataclasses.replace(record, certificate_id=f"{number:064x}"))
    world.plane.commit()
    assert kept.store is not None
    before = kept.store._database.total_changes

    account.put_certificate(dataclasses.replace(record, certificate_id="f" * 64))
    world.plane.commit()

    assert kept.store._database.total_changes - before == 1


@pytest.mark.parametrize("name", sorted(shapes()))
def test_every_field_of_a_partition_can_be_kept(name: str) -> None:
    shape = shapes()[name]

    codec_of(shape.value)
    for key in shape.keys:
        codec_of(key)


# --- the directory ---


def test_the_directory_and_the_files_in_it_are_the_owners_alone(directory: Path) -> None:
    with closing(open_store(directory)) as store:
        store.attach(World().core)

        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        names = {each.name: stat.S_IMODE(each.stat().st_mode) for each in directory.iterdir()}
        assert {"state.sqlite3", "root.pem", "ca.pem", "lock"} <= set(names)
        assert set(names.values()) == {0o600}
        assert "PRIVATE KEY" in (directory / "root.pem").read_text()
        assert store.ca_file.read_text() == certificate_pem(store.root.certificate)


def test_the_root_is_the_same_from_start_to_start(directory: Path) -> None:
    with closing(open_store(directory)) as store:
        first = store.root.certificate
    with closing(open_store(directory)) as store:
        assert store.root.certificate == first
        assert store.root.key is not None


def test_a_root_that_ends_soon_is_made_anew(directory: Path) -> None:
    with closing(open_store(directory, days=300)) as store:
        first = store.root.certificate
    with closing(open_store(directory)) as store:
        assert store.root.certificate != first
        assert store.ca_file.read_text() == certificate_pem(store.root.certificate)


def test_starts_are_counted(directory: Path) -> None:
    for starts in range(3):
        with closing(open_store(directory)) as store:
            assert store.starts == starts
            store.attach(World().core)


def test_a_directory_in_use_is_refused_and_free_after_the_end(directory: Path) -> None:
    with (
        closing(open_store(directory)),
        pytest.raises(StateError, match=f"in use by another emulator, process {os.getpid()}"),
    ):
        open_store(directory)

    open_store(directory).close()


def test_an_empty_directory_is_made_private(directory: Path) -> None:
    directory.mkdir(mode=0o755)

    open_store(directory).close()

    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def open_to_others(directory: Path) -> None:
    open_store(directory).close()
    directory.chmod(0o755)


def newer(directory: Path) -> None:
    open_store(directory).close()
    with closing(sqlite3.connect(directory / "state.sqlite3")) as database:
        database.execute(f"PRAGMA user_version = {VERSION + 1}")


def another_program(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    with closing(sqlite3.connect(directory / "state.sqlite3")) as database:
        database.execute("CREATE TABLE mine (x)")


def garbage(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    (directory / "state.sqlite3").write_bytes(b"no database at all, but long enough to be looked at" * 100)


def garbled_key(directory: Path) -> None:
    open_store(directory).close()
    (directory / "root.pem").write_text("no key")


def a_file(directory: Path) -> None:
    directory.write_text("")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (open_to_others, "can be read by others .mode 0755."),
        (newer, f"is of version {VERSION + 1}, this version of devicesim reads version {VERSION}"),
        (another_program, "is not an emulator's state"),
        (garbage, "file is not a database"),
        (garbled_key, "root.pem"),
        (a_file, "File exists"),
    ],
)
def test_a_directory_that_cannot_be_used_is_refused_by_name(
    directory: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(directory)

    for _ in range(2):  # and left free by the refusal
        with pytest.raises(StateError, match=message) as caught:
            open_store(directory)
        assert str(directory) in str(caught.value)
        assert caught.value.exit_code == 2


def only_the_lock(directory: Path) -> None:
    (directory / "lock").touch()


def an_empty_database(directory: Path) -> None:
    (directory / "state.sqlite3").touch()


def a_database_without_tables(directory: Path) -> None:
    with closing(sqlite3.connect(directory / "state.sqlite3")) as database:
        database.execute("PRAGMA journal_mode = WAL")


def half_a_root(directory: Path) -> None:
    an_empty_database(directory)
    (directory / "root.pem.new").write_text("-----BEGIN PRIV")


def a_root_without_its_public_half(directory: Path) -> None:
    open_store(directory).close()
    (directory / "ca.pem").unlink()


@pytest.mark.parametrize(
    "cut_short",
    [only_the_lock, an_empty_database, a_database_without_tables, half_a_root, a_root_without_its_public_half],
)
def test_a_first_start_that_was_killed_in_the_middle_is_made_good_by_the_next(
    directory: Path, cut_short: Callable[[Path], None]
) -> None:
    directory.mkdir(mode=0o700)
    cut_short(directory)

    with closing(open_store(directory)) as store:
        store.attach(World().core)
        assert store.ca_file.read_text() == certificate_pem(store.root.certificate)
    assert not list(directory.glob("*.new"))


@pytest.mark.parametrize(
    "spoil",
    [
        "UPDATE entries SET value = '{}' WHERE field = 'things'",
        "UPDATE entries SET value = json_set(value, '$.invented', 1) WHERE field = 'things'",
        "UPDATE entries SET value = 'no JSON' WHERE field = 'things'",
        "UPDATE entries SET key = 'no JSON' WHERE field = 'things'",
        "UPDATE entries SET field = 'invented' WHERE field = 'things'",
    ],
)
def test_an_entry_that_is_not_understood_is_named(kept: Kept, directory: Path, spoil: str) -> None:
    world = kept.start()
    world.registry.things.create(world.account(A), "robot")
    world.plane.commit()
    kept.crash()
    with closing(sqlite3.connect(directory / "state.sqlite3")) as database, database:
        database.execute(spoil)

    with pytest.raises(StateError, match=f"does not understand: account {A}, us-east-1, (things|invented)"):
        kept.start()


def test_a_disk_that_does_not_take_it_is_told_and_the_change_stays_to_be_written(kept: Kept) -> None:
    world = kept.start()
    world.registry.things.create(world.account(A), "t")
    assert kept.store is not None
    kept.store._database.execute("PRAGMA query_only = 1")

    with pytest.raises(StateError, match="readonly"):
        world.plane.commit()
    kept.store._database.execute("PRAGMA query_only = 0")
    world.plane.commit()

    assert list(kept.start().account(A).things) == ["t"]


def test_the_log_is_copied_into_the_database_when_it_has_grown(
    kept: Kept, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = kept.start()
    store = kept.store
    assert store is not None
    log, database = directory / "state.sqlite3-wal", directory / "state.sqlite3"
    world.registry.things.create(world.account(A), "first")
    world.plane.commit()
    size = database.stat().st_size
    assert store.checkpoint() is False  # not worth it yet
    assert database.stat().st_size == size

    monkeypatch.setattr("devicesim.emulator.store.CHECKPOINT_BYTES", 1)
    for number in range(50):
        world.registry.things.create(world.account(A), f"t{number}")
        world.plane.commit()
    assert store.checkpoint() is False
    assert database.stat().st_size > size

    monkeypatch.setattr("devicesim.emulator.store.MAX_LOG_BYTES", 1)
    assert store.checkpoint() is True
    store.truncate()
    assert log.stat().st_size == 0
    assert len(kept.start().account(A).things) == 51


def test_a_store_is_attached_to_an_empty_core_only(directory: Path) -> None:
    world = World()
    world.account(A)
    with closing(open_store(directory)) as store, pytest.raises(ValueError, match="attached to an empty one"):
        store.attach(world.core)


@pytest.mark.slow
def test_a_hundred_thousand_certificates_are_read_in_seconds(kept: Kept) -> None:
    world = kept.start()
    account = world.account(A)
    world.register_ca(account, mode="SNI_ONLY")
    world.register_leaf(account, device(0))
    (record,) = account.certificates.values()
    for number in range(100_000):
        leaf_id = f"{number:064x}"
        changed = dataclasses.replace(record, certificate_id=leaf_id, arn=account.certificate_arn(leaf_id))
        account.put_certificate(changed)
    world.plane.commit()

    started = time.monotonic()
    after = kept.start()
    seconds = time.monotonic() - started

    assert len(after.account(A).certificates) == 100_001
    assert after.account(A).certificates["0" * 64].status is CertificateStatus.ACTIVE
    assert seconds < 20  # 2 s on a machine with nothing else to do
    print(f"100,001 certificates read in {seconds:.2f} s")


def test_a_core_without_a_store_notes_nothing() -> None:
    world = World()

    assert not isinstance(world.account(A), KeptPartition)
    assert isinstance(world.core, Core)
