"""The run's record: one SQLite file, one writer that batches, any number of readers while it writes.

The file is in write-ahead mode while the run goes on, so that readers see whole batches and never hold the writer up,
and so that after ``kill -9`` everything up to the last batch is there (with the ``-wal`` file beside it, if any, which
belongs to the record). A finished record is one plain file. Commits are not synced to the disk one by one: the record
outlives the process, not a power cut within the last seconds.

Times are arguments: nothing here reads a clock.
"""

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from devicesim.errors import RecordError
from devicesim.outcome import Attempt, Holding, Verdict
from devicesim.record import rows, schema
from devicesim.record.facts import (
    AccountRecord,
    DeviceRecord,
    Drop,
    GeneratorSample,
    GroupRecord,
    Note,
    Phase,
    RunFacts,
    RunStatus,
    ThresholdRecord,
)
from devicesim.rules import Expectation

T = TypeVar("T")

BATCH_ROWS = 200
"""Measured: a batch of 200 attempts takes 0.9 ms (1000: 4.4 ms), for which the event loop stands still, at 150 000 rows
a second (1000: 180 000)."""
CACHE_KIB = 512
"""Of the file's pages in memory, in place of SQLite's 2000. With 10,000 devices that live a row costs 2 µs more."""
BATCH_SECONDS = 1.0
"""What a reader lags behind, and what ``kill -9`` may lose."""

_WIDTHS = {
    # In the order in which references point, for a batch is written table by table.
    "accounts": 7,
    "expectations": 12,
    "groups": 13,
    "devices": 6,
    "attempts": 23,
    "drops": 3,
    "thresholds": 6,
    "generator": 7,
    "inventories": 3,
    "holdings": 6,
    "verdicts": 11,
    "notes": 6,
}
_REPLACED = frozenset({"accounts", "groups", "attempts", "holdings", "thresholds", "verdicts"})
"""A row is written again when more is known: an endpoint after setup, an attempt at CONNACK and when it is over."""


def _insert(table: str, width: int) -> str:
    verb = "INSERT OR REPLACE" if table in _REPLACED else "INSERT"
    return f"{verb} INTO {table} VALUES ({', '.join('?' * width)})"


_INSERT = {table: _insert(table, width) for table, width in _WIDTHS.items()}
# Replacing its row would have SQLite look through every holding for those that refer to it.
_INSERT["inventories"] += " ON CONFLICT DO UPDATE SET observed_at = excluded.observed_at"


class RunWriter:
    """Writes the record of one run. Made by :meth:`create`; a context manager, from one thread.

    What is added gathers in memory and is committed when :data:`BATCH_ROWS` rows or :data:`BATCH_SECONDS` have
    gathered; call :meth:`tick` now and then, so that the last rows before a quiet stretch do not wait. Left without
    :meth:`finish`, the record says ``interrupted``.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, batch_rows: int, batch_seconds: float) -> None:
        self.path = path
        self._connection = connection
        self._open = True
        self._batch_rows = batch_rows
        self._batch_seconds = batch_seconds
        self._pending: dict[str, list[rows.SQLRow]] = {table: [] for table in _INSERT}
        self._waiting = 0
        self._oldest: float | None = None
        self._expectations: dict[Expectation, int] = {}
        self._positions: dict[tuple[str, str], int] = {}

    @classmethod
    def create(
        cls, path: Path, run: RunFacts, *, batch_rows: int = BATCH_ROWS, batch_seconds: float = BATCH_SECONDS
    ) -> "RunWriter":
        """Start a record at ``path``, where nothing may be: a record is never overwritten. Mode 0600."""
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError as exc:
            raise RecordError(f"{str(path)!r} exists already; a record is never overwritten") from exc
        except OSError as exc:
            raise RecordError(f"{str(path)!r} cannot be created: {exc.strerror}") from exc
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            with _writing(path):
                _prepare(connection, run)
        except BaseException:
            connection.close()
            raise
        return cls(path, connection, batch_rows, batch_seconds)

    def add_account(self, account: AccountRecord, *, now: float) -> None:
        """Add an account, or tell more of one that was added."""
        self._add("accounts", rows.from_account(account, self._position("accounts", account.name)), now)

    def add_group(self, group: GroupRecord, *, now: float) -> None:
        """Add a group, or tell more of one that was added. Its account comes first."""
        expectation = self._expectation(group.expectation, now)
        self._add("groups", rows.from_group(group, self._position("groups", group.name), expectation), now)

    def add_device(self, device: DeviceRecord, *, now: float) -> None:
        """Add a device. Its group comes first."""
        expectation = None if device.expectation is None else self._expectation(device.expectation, now)
        self._add("devices", rows.from_device(device, expectation), now)

    def add_attempt(self, attempt: Attempt, *, now: float) -> None:
        """Add an attempt. The same device and number again replaces it: a connection that lives is recorded at CONNACK
        and once more when it is over."""
        self._add("attempts", rows.from_attempt(attempt), now)

    def add_drop(self, drop: Drop, *, now: float) -> None:
        """Add a start that was not made. Its group comes first."""
        self._add("drops", rows.from_drop(drop), now)

    def add_threshold(self, threshold: ThresholdRecord, position: int, *, now: float) -> None:
        """Add a threshold, or tell more of one that was added; ``position`` is its place in the fleet file."""
        self._add("thresholds", rows.from_threshold(threshold, position), now)

    def add_sample(self, sample: GeneratorSample) -> None:
        """Add what making the load cost a process in a stretch of time."""
        self._add("generator", rows.from_sample(sample), sample.at)

    def add_holdings(self, phase: Phase, account: str, holdings: Iterable[Holding], *, now: float) -> None:
        """Add what an account says that it holds, before or after the run: nothing is an answer too. May be called
        again, with more of them or with news."""
        self._add("inventories", (phase, account, now), now)
        for holding in holdings:
            if holding.account != account:
                raise ValueError(f"a holding of {holding.account!r} among those of {account!r}")
            self._add("holdings", rows.from_holding(holding, phase), now)

    def add_verdict(self, verdict: Verdict, *, now: float) -> None:
        self._add("verdicts", rows.from_verdict(verdict), now)

    def add_note(self, note: Note) -> None:
        self._add("notes", rows.from_note(note), note.at)

    def tick(self, now: float) -> None:
        """Commit when what has gathered is old enough."""
        if self._oldest is not None and not 0 <= now - self._oldest < self._batch_seconds:
            self.flush()

    def flush(self) -> None:
        """Commit what has gathered."""
        if not self._waiting:
            return
        with _writing(self.path), self._transaction():
            for table, batch in self._pending.items():
                if batch:
                    self._connection.executemany(_INSERT[table], batch)
        for batch in self._pending.values():
            batch.clear()
        self._waiting, self._oldest = 0, None

    def finish(self, status: RunStatus, *, now: float) -> None:
        """Write how the run ended, and close the record."""
        self.flush()
        self._end(status, now)

    def close(self) -> None:
        """Close a record that was not finished: it says ``interrupted``, and when is not known."""
        if self._open:
            try:
                self.flush()
            finally:
                self._end(RunStatus.INTERRUPTED, None)

    def __enter__(self) -> "RunWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _add(self, table: str, row: rows.SQLRow, now: float) -> None:
        if not self._open:
            raise ValueError(f"the record {str(self.path)!r} is finished; nothing can be added to {table}")
        self._pending[table].append(row)
        self._waiting += 1
        if self._oldest is None:
            self._oldest = now
        if self._waiting >= self._batch_rows:
            self.flush()
        else:
            self.tick(now)

    def _expectation(self, expectation: Expectation, now: float) -> int:
        """The id of an expectation; equal ones are one row."""
        if (known := self._expectations.get(expectation)) is not None:
            return known
        number = self._expectations[expectation] = len(self._expectations) + 1
        self._add("expectations", rows.from_expectation(expectation, number), now)
        return number

    def _position(self, table: str, name: str) -> int:
        return self._positions.setdefault((table, name), len(self._positions))

    def _end(self, status: RunStatus, now: float | None) -> None:
        self._open = False
        try:
            with _writing(self.path), self._transaction():
                self._connection.execute("UPDATE run SET status = ?, ended_at = ?", (status, now))
            self._leave_wal()
        finally:
            self._connection.close()

    def _leave_wal(self) -> None:
        """Make the record one plain file, that opens from a read-only place too; in vain while somebody reads it."""
        self._connection.execute("PRAGMA busy_timeout = 0")
        try:
            self._connection.execute("PRAGMA journal_mode = DELETE").fetchone()
        except sqlite3.OperationalError:
            return

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")


class RunReader:
    """Reads a record: also one that is being written, or whose run was killed. Never changes it. A context manager."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise RecordError(f"{str(path)!r} is not a record: no such file")
        self.path = path
        with _reading(path):
            self._connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        try:
            self._check()
        except RecordError:
            self._connection.close()
            raise

    def _check(self) -> None:
        with _reading(self.path):
            (application,) = self._connection.execute("PRAGMA application_id").fetchone()
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if application != schema.APPLICATION_ID:
            raise RecordError(f"{str(self.path)!r} is not a record: a SQLite file of something else")
        if version != schema.SCHEMA_VERSION:
            raise RecordError(
                f"{str(self.path)!r} is a record of version {version}; this devicesim reads version"
                f" {schema.SCHEMA_VERSION}",
                hint="read it with the devicesim that made it",
            )

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> "RunReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Everything read inside is of one moment, however the run goes on."""
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            if self._connection.in_transaction:  # damage found while reading has ended it already
                self._connection.execute("ROLLBACK")

    def run(self) -> RunFacts:
        for run in self._select("SELECT * FROM run", rows.to_run):
            return run
        raise RecordError(f"{str(self.path)!r} is damaged: it has no run")

    def accounts(self) -> list[AccountRecord]:
        """In the order in which they were first added."""
        return list(self._select("SELECT * FROM accounts ORDER BY position", rows.to_account))

    def groups(self) -> list[GroupRecord]:
        """In the order in which they were first added."""
        known = self._expectations()
        return list(self._select("SELECT * FROM groups ORDER BY position", lambda row: rows.to_group(row, known)))

    def devices(self) -> Iterator[DeviceRecord]:
        """By number."""
        known = self._expectations()
        yield from self._select("SELECT * FROM devices ORDER BY number", lambda row: rows.to_device(row, known))

    def attempts(self, device: int | None = None) -> Iterator[Attempt]:
        """By device and number; of one device when it is named."""
        if device is None:
            return self._select("SELECT * FROM attempts ORDER BY device, attempt", rows.to_attempt)
        return self._select("SELECT * FROM attempts WHERE device = ? ORDER BY attempt", rows.to_attempt, device)

    def holdings(self, phase: Phase) -> Iterator[Holding]:
        """By certificate id and account."""
        query = "SELECT * FROM holdings WHERE phase = ? ORDER BY certificate_id, account"
        return self._select(query, rows.to_holding, phase)

    def holdings_of(self, phase: Phase, certificate_id: str) -> list[Holding]:
        """What each account holds of one certificate."""
        query = "SELECT * FROM holdings WHERE phase = ? AND certificate_id = ? ORDER BY account"
        return list(self._select(query, rows.to_holding, phase, certificate_id))

    def shared_certificates(self) -> frozenset[str]:
        """Ids of the certificates that several devices have."""
        query = "SELECT certificate_id FROM devices GROUP BY certificate_id HAVING count(*) > 1"
        return frozenset(self._select(query, lambda row: str(row[0])))

    def asked(self, phase: Phase) -> frozenset[str]:
        """The accounts that were asked what they hold, and answered."""
        query = "SELECT account FROM inventories WHERE phase = ?"
        return frozenset(self._select(query, lambda row: str(row[0]), phase))

    def verdicts(self) -> Iterator[Verdict]:
        """By device."""
        return self._select("SELECT * FROM verdicts ORDER BY device", rows.to_verdict)

    def drops(self) -> Iterator[Drop]:
        """By place in the schedule."""
        return self._select("SELECT * FROM drops ORDER BY device", rows.to_drop)

    def thresholds(self) -> list[ThresholdRecord]:
        """In the order of the fleet file."""
        return list(self._select("SELECT * FROM thresholds ORDER BY id", rows.to_threshold))

    def samples(self) -> Iterator[GeneratorSample]:
        """By process and time."""
        return self._select("SELECT * FROM generator ORDER BY process, at", rows.to_sample)

    def notes(self) -> Iterator[Note]:
        """In the order in which they were written."""
        return self._select("SELECT * FROM notes ORDER BY id", rows.to_note)

    def _expectations(self) -> dict[int, Expectation]:
        pairs = self._select("SELECT * FROM expectations", lambda row: (int(row[0]), rows.to_expectation(row)))
        return dict(pairs)

    def _select(self, query: str, convert: Callable[[rows.SQLRow], T], *values: object) -> Iterator[T]:
        with _reading(self.path):
            for row in self._connection.execute(query, values):
                yield convert(row)


def _prepare(connection: sqlite3.Connection, run: RunFacts) -> None:
    """Make an empty file a record."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.execute("BEGIN")
    connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {schema.SCHEMA_VERSION}")
    for statement in _statements(schema.TABLES + schema.VIEWS):
        connection.execute(statement)
    connection.execute(_insert("run", 13), rows.from_run(run))
    connection.execute("COMMIT")


def _statements(script: str) -> Iterator[str]:
    """The statements of a script, each with its comments, which SQLite keeps."""
    statement = ""
    for line in script.strip().splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement.strip().removesuffix(";")
            statement = ""


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """What the disk does to us, in our words. A breach of the schema is our own mistake and passes."""
    try:
        yield
    except (sqlite3.OperationalError, sqlite3.DataError) as exc:
        raise RecordError(f"{str(path)!r} cannot be written: {exc}") from exc


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What is wrong with a file that is not a record, or no longer a whole one, in our words."""
    try:
        yield
    except sqlite3.Error as exc:
        if exc.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            raise RecordError(f"{str(path)!r} is not a record: not a SQLite file") from exc
        if exc.sqlite_errorcode == sqlite3.SQLITE_CANTOPEN:
            raise RecordError(
                f"{str(path)!r} cannot be opened: {exc}",
                hint="the record of a run that did not finish is read from a directory that may be written to; copy it"
                " there with the -wal file beside it",
            ) from exc
        raise RecordError(f"{str(path)!r} is damaged: {exc}") from exc
    except (ValueError, TypeError, KeyError) as exc:
        raise RecordError(f"{str(path)!r} is damaged: it holds {exc}") from exc
