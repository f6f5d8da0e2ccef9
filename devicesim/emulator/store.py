"""``emulate --state DIR``: what the accounts hold, kept in a directory: it outlasts the process, however that ends.

    store = Store.open(Path("state"), new_root=make_root, usable_until=datetime.now(UTC) + timedelta(days=366))
    store.attach(core)  # reads what was kept; from now on every change is written before anybody is told of it
    ...
    store.close()

The dicts in memory are the truth (design.md §3). Changes are noted as they come
(:mod:`~devicesim.emulator.state.journal`) and written in one transaction at :meth:`Store.commit`, which hangs on
:attr:`DataPlane.commit`: before bytes are written to a device and before an API call is answered. So whatever was
acknowledged is there after ``kill -9``. The file is SQLite's, in WAL mode and not synchronised to the disk at each
commit: when the *machine* loses power, the last moments may be missing, never a part of a transaction.

In DIR: ``state.sqlite3``, ``root.pem`` (the root's key and certificate), ``ca.pem`` (the certificate alone), and
``lock``, which one emulator at a time holds. Kept are accounts, Regions and everything in them (:class:`Partition`),
retained messages too. Connections, MQTT sessions with their queues, JITP runs under way, faults, the clock and the
history are not.
"""

import fcntl
import json
import logging
import os
import sqlite3
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from devicesim.emulator.codec import Codec, codec_of
from devicesim.emulator.core import Core
from devicesim.emulator.state.journal import ABSENT, Entry, Journal, KeptPartition, Shape, shapes
from devicesim.errors import KeyMaterialError, StateError
from devicesim.pki.authority import Authority
from devicesim.pki.identity import certificate_pem, private_key_pem

_log = logging.getLogger(__name__)

VERSION: Final = 1
"""Of the tables and of the records' JSON. A file of a newer one is refused."""
APPLICATION_ID: Final = 0x64657653
"""Marks the file as ours (SQLite's ``application_id``)."""
CHECKPOINT_BYTES: Final = 4 * 1024 * 1024
"""A write-ahead log this long is worth copying into the database."""
MAX_LOG_BYTES: Final = 64 * 1024 * 1024
"""One this long is copied at once, while everybody waits."""
_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE partitions (
  id INTEGER PRIMARY KEY,
  account_id TEXT NOT NULL,
  region TEXT NOT NULL,
  UNIQUE (account_id, region)
);
CREATE TABLE entries (
  id INTEGER PRIMARY KEY,  -- ascends in the order in which entries were made
  partition INTEGER NOT NULL REFERENCES partitions,
  field TEXT NOT NULL,     -- of Partition
  key TEXT NOT NULL,       -- JSON; '' for a scalar
  inner TEXT NOT NULL,     -- JSON: the second key; '' where there is none
  value TEXT NOT NULL,     -- JSON
  UNIQUE (partition, field, key, inner)
);
"""
_INSERT = (
    "INSERT INTO entries (partition, field, key, inner, value) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (partition, field, key, inner) DO UPDATE SET value = excluded.value"
)
_DELETE = "DELETE FROM entries WHERE partition = ? AND field = ? AND key = ? AND inner = ?"


@dataclass(frozen=True, slots=True)
class _Column:
    """How a field of a partition stands in the table."""

    shape: Shape
    keys: tuple[Codec, ...]
    value: Codec

    def row_keys(self, entry: Entry) -> tuple[str, str]:
        given = (entry.key, entry.inner)[: self.shape.depth]
        texts = [json.dumps(codec.encode(each)) for codec, each in zip(self.keys, given, strict=True)]
        key, inner = (*texts, "", "")[:2]
        return key, inner

    def read_keys(self, key: str, inner: str) -> tuple[Hashable, Hashable]:
        given = (key, inner)[: self.shape.depth]
        read = [codec.decode(json.loads(each)) for codec, each in zip(self.keys, given, strict=True)]
        first, second = (*read, None, None)[:2]
        return first, second


class Store:
    """A directory that is held open. Not for use from several threads, but for :meth:`checkpoint`."""

    def __init__(self, directory: Path, database: sqlite3.Connection, lock: int, root: Authority) -> None:
        self.directory = directory
        self.root = root
        """The emulator's own CA, which signs server certificates."""
        self.starts = int(_meta(database, "starts") or 0)
        """How often an emulator was started on this directory before."""
        self._database = database
        self._lock = lock
        self._journal = Journal()
        self._columns = {
            shape.name: _Column(shape, tuple(codec_of(each) for each in shape.keys), codec_of(shape.value))
            for shape in shapes().values()
        }
        self._partitions: list[KeptPartition] = []
        self._numbers: dict[KeptPartition, int] = {}
        self._retired: list[int] = []
        """Partitions that were reset and whose rows are still to go."""
        self._unwritable: Callable[[], None] = _nothing

    @classmethod
    def open(cls, directory: Path, *, new_root: Callable[[], Authority], usable_until: datetime) -> "Store":
        """Take the directory, making it if it is not there.

        ``new_root`` makes the emulator's CA the first time, and again when the kept one ends before ``usable_until``.
        Raises :class:`StateError` when it is another's, in use, of another version, or damaged.
        """
        directory = directory.absolute()
        with _told(directory):
            _make_private(directory)
            lock = _lock(directory)
            try:
                database = _open_database(directory / "state.sqlite3")
                try:
                    return cls(directory, database, lock, _root(directory, new_root, usable_until))
                except BaseException:
                    database.close()
                    raise
            except BaseException:
                os.close(lock)
                raise

    @property
    def ca_file(self) -> Path:
        return self.directory / "ca.pem"

    def attach(self, core: Core) -> None:
        """Read what was kept into an empty core, and keep what happens in it from now on."""
        registry = core.registry
        if registry.partitions():
            raise ValueError("the core has accounts already; a store is attached to an empty one")
        registry.new_partition = self._new_partition
        registry.on_clear.append(self._cleared)
        for partition in self._read():
            registry.adopt(partition)
        core.plane.commit = self.commit
        self._unwritable = lambda: core.plane.wake()  # the gateway's own commit has no boundary over it
        with _told(self.directory), self._database:
            self._database.execute("INSERT OR REPLACE INTO meta VALUES ('starts', ?)", (str(self.starts + 1),))

    def commit(self) -> None:
        """Write what has changed; nothing to do costs nothing.

        Raises :class:`StateError` when it cannot be written. Then nobody may be told of it: the emulator ends, whoever
        called; the gateway tries again at once, and what it raises is nobody's to answer.
        """
        if len(self._journal) == 0 and not self._retired:
            return
        numbers = dict(self._numbers)
        try:
            with _told(self.directory), self._database as database:
                for number in self._retired:
                    database.execute("DELETE FROM entries WHERE partition = ?", (number,))
                    database.execute("DELETE FROM partitions WHERE id = ?", (number,))
                for entry, removed in self._journal.changes():
                    self._write(entry, removed=removed)
        except StateError:
            self._numbers = numbers  # what was inserted is rolled back
            self._unwritable()
            raise
        self._retired.clear()
        self._journal.forget()

    def checkpoint(self) -> bool:
        """Copy the log into the database when it has grown. May be called from another thread than the rest.

        Answers whether the log is so long that it must be emptied by :meth:`truncate`.
        """
        size = self._log_bytes()
        if size < CHECKPOINT_BYTES:
            return False
        with _told(self.directory):
            own = sqlite3.connect(self.directory / "state.sqlite3", timeout=5)
            try:
                own.execute("PRAGMA synchronous = NORMAL")
                own.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            finally:
                own.close()
        return size > MAX_LOG_BYTES

    def truncate(self) -> None:
        """Empty the log: what could not be copied while it was being written is copied now."""
        with _told(self.directory):
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Write what is left and give the directory back."""
        try:
            self.commit()
            self.truncate()
        finally:
            self._database.close()
            os.close(self._lock)

    # --- writing ---

    def _new_partition(self, account_id: str, region: str) -> KeptPartition:
        partition = KeptPartition(self._journal, account_id, region)
        self._partitions.append(partition)
        return partition

    def _cleared(self) -> None:
        """The registry has forgotten every account (POST /reset): what still changes in one of them is not noted."""
        for partition in self._partitions:
            partition.journal = Journal()
        self._partitions.clear()
        self._retired.extend(self._numbers.values())
        self._numbers.clear()
        self._journal.forget()

    def _number(self, partition: KeptPartition) -> int:
        number = self._numbers.get(partition)
        if number is None:
            insert = "INSERT INTO partitions (account_id, region) VALUES (?, ?)"
            cursor = self._database.execute(insert, (partition.account_id, partition.region))
            assert cursor.lastrowid is not None
            number = self._numbers[partition] = cursor.lastrowid
        return number

    def _write(self, entry: Entry, *, removed: bool) -> None:
        column = self._columns[entry.field]
        value = entry.partition.current(entry)
        name = (self._number(entry.partition), entry.field, *column.row_keys(entry))
        if removed or value is ABSENT:
            self._database.execute(_DELETE, name)
        if value is not ABSENT:
            text = json.dumps(column.value.encode(value), separators=(",", ":"))
            self._database.execute(_INSERT, (*name, text))

    # --- reading ---

    def _read(self) -> Iterator[KeptPartition]:
        with _told(self.directory):
            partitions = {}
            for number, account_id, region in self._database.execute("SELECT * FROM partitions ORDER BY id"):
                partition = partitions[number] = self._new_partition(account_id, region)
                self._numbers[partition] = number
            rows = self._database.execute("SELECT partition, field, key, inner, value FROM entries ORDER BY id")
            for number, field, key, inner, text in rows:
                self._restore(partitions[number], field, key, inner, text)
        self._journal.forget()
        for partition in partitions.values():
            partition.rebuild_indexes()
            yield partition

    def _restore(self, partition: KeptPartition, field: str, key: str, inner: str, text: str) -> None:
        column = self._columns.get(field)
        try:
            if column is None:
                raise ValueError("no such collection")  # noqa: TRY301 - told with the others
            first, second = column.read_keys(key, inner)
            value = column.value.decode(json.loads(text))
        except (ValueError, TypeError, AttributeError, KeyError) as exc:
            where = f"account {partition.account_id}, {partition.region}, {field} {key!r} {inner!r}".rstrip(" '")
            raise StateError(
                f"{self.directory} holds what this version of devicesim does not understand: {where}: {exc}",
                hint="use the version that wrote it, or another directory",
            ) from exc
        partition.restore(column.shape, first, second, value)

    def _log_bytes(self) -> int:
        with suppress(FileNotFoundError):
            return (self.directory / "state.sqlite3-wal").stat().st_size
        return 0


@contextmanager
def _told(directory: Path) -> Iterator[None]:
    """What the disk, SQLite or the key file say against the directory, as a :class:`StateError`."""
    try:
        yield
    except (sqlite3.Error, KeyMaterialError) as exc:
        hint = "use another directory, or one written by this version"
        if isinstance(exc, sqlite3.OperationalError):
            hint = "is the disk full, or the directory not writable?"
        raise StateError(f"{directory} cannot be used for the emulator's state: {exc}", hint=hint) from exc
    except OSError as exc:
        raise StateError(f"{directory} cannot be used for the emulator's state: {exc.strerror or exc}") from exc


def _make_private(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = directory.stat().st_mode & 0o777
    if not mode & 0o077:
        return
    if any(directory.iterdir()):
        raise StateError(
            f"{directory} can be read by others (mode {mode:04o}); keys are kept in it, so it must be 0700",
            hint=f"chmod 700 {directory}",
        )
    directory.chmod(0o700)


def _lock(directory: Path) -> int:
    """Hold the directory for as long as the descriptor is open, at the longest until this process ends."""
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise StateError(
            f"{directory} is in use by another emulator{f', process {holder}' if holder else ''}",
            hint="stop that one, or use another directory",
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _open_database(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite gives its log the same mode
    database = sqlite3.connect(path, timeout=5)
    try:
        _prepare(database, path)
    except BaseException:
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    (tables,) = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    fresh = (application, version, tables) == (0, 0, 0)
    if not fresh and application != APPLICATION_ID:
        raise StateError(f"{path} is not an emulator's state", hint="use another directory")
    if not fresh and version != VERSION:
        raise StateError(
            f"{path} is of version {version}, this version of devicesim reads version {VERSION}",
            hint="use the version of devicesim that wrote it, or another directory",
        )
    database.execute("PRAGMA journal_mode = WAL").fetchone()
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute("PRAGMA wal_autocheckpoint = 0")  # it would hold everybody up in the middle; see checkpoint()
    if fresh:  # in one transaction: a directory is an emulator's whole or not at all
        script = f"{_SCHEMA} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};"
        database.executescript(f"BEGIN; {script} COMMIT;")


def _root(directory: Path, new_root: Callable[[], Authority], usable_until: datetime) -> Authority:
    """The emulator's CA. Clients keep trusting it from start to start, until it ends."""
    path = directory / "root.pem"
    root = None
    if path.exists():
        pem = path.read_bytes()
        root = Authority.load(pem, pem, str(path))
        if root.certificate.not_valid_after_utc < usable_until:
            _log.warning("the root in %s ends soon and is made anew: clients need the new %s/ca.pem", path, directory)
            root = None
    if root is None:
        root = new_root()
        assert root.key is not None
        _replace(path, private_key_pem(root.key) + certificate_pem(root.certificate))
    _replace(directory / "ca.pem", certificate_pem(root.certificate))
    return root


def _replace(path: Path, text: str) -> None:
    """Write a private file whole or not at all."""
    temporary = path.with_name(path.name + ".new")
    with suppress(FileNotFoundError):
        temporary.unlink()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _meta(database: sqlite3.Connection, name: str) -> str | None:
    row = database.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


def _nothing() -> None:
    pass
