"""What a check makes in accounts that exist, written down before it is made: a killed check can still be tidied up."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import TextIO

import trio

from devicesim.cloud.account import AccountClient, ControlPlaneError
from devicesim.cloud.teardown import Made, remove
from devicesim.conformance.player import Pace
from devicesim.conformance.runner import NAME, SUBJECT
from devicesim.errors import InputError
from devicesim.fleet.target import Target
from devicesim.pki.identity import load_certificates


class Journal:
    """A file of :class:`~devicesim.cloud.teardown.Made`, a line each. A context manager.

    It is deleted at the end when everything that it names was removed.
    """

    def __init__(self, path: Path, left: Callable[[], bool]) -> None:
        """Nothing is written before the first :meth:`add`. ``left`` is asked at the end whether anything is left."""
        self.path = path
        self._left = left
        self._file: TextIO | None = None

    def add(self, made: Sequence[Made]) -> None:
        """Write down what is about to be made. Raises :class:`InputError` when the file cannot be written."""
        try:
            if self._file is None:
                self._file = self.path.open("x", encoding="utf-8")
            self._file.writelines(f"{each.to_json()}\n" for each in made)
            self._file.flush()
        except OSError as exc:
            raise InputError(
                f"{self.path} cannot be written: {exc.strerror or exc}",
                hint="a check writes down what it makes in accounts that exist; start it where it can",
            ) from exc

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            if not self._left():
                self.path.unlink(missing_ok=True)


def read_journal(path: Path) -> list[Made]:
    """What a check that was killed wrote down. Raises :class:`InputError`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
        raise InputError(f"{path} cannot be read: {reason}", hint="name the .journal file that the check left") from exc
    made: list[Made] = []
    for number, line in enumerate(lines, 1):
        try:
            made.append(Made.from_json(line))
        except ValueError as exc:
            if number == len(lines) and made:
                break  # the line that was being written when the check was killed: nothing of it was made
            raise InputError(f"{path}, line {number}: {exc}", hint="name the .journal file that a check left") from exc
    return made


async def remove_all(made: Sequence[Made], target: Target, pace: Pace) -> list[str]:
    """Remove what a journal names; what could not be removed, one line each.

    Raises :class:`InputError` for an account that the fleet file does not have, and for what no check makes, before
    anything is removed; :class:`~devicesim.errors.TargetError` for credentials of another account.
    """
    notes: list[str] = []
    accounts = dict.fromkeys(each.account for each in made)
    unknown = [name for name in accounts if name not in target.accounts]
    if unknown:
        raise InputError(
            f"account {unknown[0]!r} of the journal is not one of {', '.join(map(repr, target.accounts))}",
            hint="name the FLEET that was checked",
        )
    with ExitStack() as stack:
        clients = [
            stack.enter_context(closing(AccountClient(target.accounts[name], calls_per_second=pace.calls_per_second)))
            for name in accounts
        ]
        for client in clients:
            await client.check_identity()
            await _only_ours(client, made)
        for client in clients:
            await remove(client, made, notes.append, settle=pace.settle)
    return notes


async def _only_ours(client: AccountClient, made: Sequence[Made]) -> None:
    """A journal that was edited, or is another account's, must not delete what is in production."""
    mine = [each for each in made if each.account == client.access.name]
    named = [name for each in mine for name in (each.policy, *(thing for _, thing in each.things)) if name is not None]
    foreign = [name for name in named if not name.startswith(f"{NAME}-")]
    for ca_id in dict.fromkeys(each.ca_id for each in mine if each.ca_id is not None):
        try:
            answer = await client.call("describe_ca_certificate", certificateId=ca_id)
        except ControlPlaneError as exc:
            if exc.code != "ResourceNotFoundException":
                raise
        else:
            (ca,) = load_certificates(answer["certificateDescription"]["certificatePem"].encode(), ca_id)
            if not ca.subject.rfc4514_string().startswith(f"CN={SUBJECT} "):
                foreign.append(ca_id)
    if foreign:
        raise InputError(
            f"account {client.access.name!r}: {foreign[0]!r} was made by no check",
            hint="name the .journal file that a check left, as it left it",
        )


async def removed(path: Path, target: Target, pace: Pace) -> list[str]:
    """Remove what the journal at ``path`` names, and the journal when nothing is left."""
    notes = await remove_all(read_journal(path), target, pace)
    if not notes:
        await trio.Path(path).unlink()
    return notes
