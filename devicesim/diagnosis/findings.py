"""What a diagnosis says: causes, each with what speaks for and against it, and the fix. Pure data."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One of the fifteen of aws-iot-behaviour.md §9."""

    number: int
    """Its number there."""
    id: str
    """``sni``, ``policy``, ...: stable, for machines."""
    title: str
    """In one line: ``the server name (SNI) is missing or another account's``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """One piece of evidence for or against a cause."""

    text: str
    """What was seen, with the value and where: ``CA 12ab34cd is INACTIVE in staging``."""
    weight: int
    """1 a hint, 3 usual, 9 as good as proof; the same scale on both sides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fix:
    """What to do."""

    text: str
    commands: tuple[str, ...] = ()
    """What can be typed into a shell, where there is something: ``aws iot update-ca-certificate ...``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A cause that something speaks for."""

    cause: Cause
    supporting: tuple[Argument, ...]
    opposing: tuple[Argument, ...]
    fixes: tuple[Fix, ...]

    @property
    def score(self) -> int:
        return sum(each.weight for each in self.supporting) - sum(each.weight for each in self.opposing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Why one device is not connected; nothing in :attr:`findings` when it is."""

    device: str
    group: str
    """Of the fleet file."""
    connected: bool
    """The last try was accepted, and lasted as long as it was watched."""
    seen: str
    """What the device saw last, in one line."""
    tries: int
    """How many it made."""
    findings: tuple[Finding, ...]
    """The likeliest first; those against which more speaks than for are left out."""
    would_need: tuple[str, ...]
    """What was not known and would have told more, one line each, with how to get it."""
    oracle: str = ""
    """Whether IoT Core should have refused the last try, by the oracle's row with its mark; empty: not enough is
    known."""
    like: str = ""
    """The device that this was found of, where this one was not looked at itself: in the record the two look alike.
    What is said of names and ids is that one's."""
    devices: int = 1
    """How many this is about: more than one where a group was never started."""
