"""Diagnoses as a document: what ``diagnose --json`` prints, and its published JSON Schema. Pure."""

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict

from devicesim.diagnosis import findings


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Argument(_Model):
    """One piece of evidence for or against a cause."""

    weight: int
    """1 a hint, 3 usual, 9 as good as proof."""
    text: str


class Fix(_Model):
    text: str
    commands: tuple[str, ...]
    """For a shell; what is not known stands in capitals."""


class Finding(_Model):
    """A cause that something speaks for."""

    number: int
    """Among the fifteen that devicesim knows."""
    id: str
    title: str
    score: int
    """What speaks for it less what speaks against it."""
    supporting: tuple[Argument, ...]
    opposing: tuple[Argument, ...]
    fixes: tuple[Fix, ...]


class Diagnosis(_Model):
    """Why one device is not connected."""

    device: str
    group: str
    """Of the fleet file."""
    devices: int
    """How many this is about: more than one where a group was never started."""
    connected: bool
    """The last try was accepted, and lasted as long as it was watched."""
    seen: str
    """What the device saw last."""
    tries: int
    """How many it made."""
    oracle: str
    """Whether IoT Core should have refused the last try, with the oracle's row; empty: not enough is known."""
    like: str
    """Another of these devices, whose findings are this one's too: the two look alike in the record, and this one was
    not looked at by itself; empty: it was."""
    findings: tuple[Finding, ...]
    """The likeliest first; none when it is connected, or :attr:`like` says where they stand."""
    would_need: tuple[str, ...]
    """What was not known and would have told more."""


class Diagnoses(_Model):
    """What `devicesim diagnose --json` prints."""

    format: Literal[1] = 1
    connected: int
    """How many of the devices are connected."""
    devices: tuple[Diagnosis, ...]

    def to_json(self) -> str:
        """One indented document; the same diagnoses are the same text."""
        return self.model_dump_json(indent=2)


def document(diagnoses: Iterable[findings.Diagnosis]) -> Diagnoses:
    """The document of these diagnoses, in their order."""
    devices = tuple(_diagnosis(each) for each in diagnoses)
    return Diagnoses(connected=sum(each.connected for each in devices), devices=devices)


def _diagnosis(diagnosis: findings.Diagnosis) -> Diagnosis:
    return Diagnosis(
        device=diagnosis.device,
        group=diagnosis.group,
        devices=diagnosis.devices,
        connected=diagnosis.connected,
        seen=diagnosis.seen,
        tries=diagnosis.tries,
        oracle=diagnosis.oracle,
        like=diagnosis.like,
        findings=() if diagnosis.like else tuple(_finding(each) for each in diagnosis.findings),
        would_need=() if diagnosis.like else diagnosis.would_need,
    )


def _finding(finding: findings.Finding) -> Finding:
    return Finding(
        number=finding.cause.number,
        id=finding.cause.id,
        title=finding.cause.title,
        score=finding.score,
        supporting=tuple(_argument(each) for each in finding.supporting),
        opposing=tuple(_argument(each) for each in finding.opposing),
        fixes=tuple(Fix(text=each.text, commands=each.commands) for each in finding.fixes),
    )


def _argument(argument: findings.Argument) -> Argument:
    return Argument(weight=argument.weight, text=argument.text)
