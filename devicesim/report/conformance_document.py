"""A conformance check as a document: what ``check --json`` prints, and its published JSON Schema. Pure.

``devicesim schema check`` prints the schema of :class:`CheckDocument`.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from devicesim.conformance.result import CaseResult, CheckResult, Status
from devicesim.report.document import OracleRow
from devicesim.rules import Row


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class EndedDocument(_Model):
    """One account's record of the case's certificate after it ran."""

    account: str
    status: str
    mode: str | None
    things: tuple[str, ...]


class CaseDocument(_Model):
    """One case."""

    name: str
    """World / records before / account dialled and server name / transport."""
    account: str
    """Dialled."""
    sni: str
    """The server name sent, in words."""
    server_name: str | None
    """As sent; null: no SNI extension."""
    row: OracleRow
    """The oracle's row that decides, with its evidence mark."""
    rests_on: tuple[OracleRow, ...]
    expected: str
    observed: str | None
    """null: it did not run."""
    ended: tuple[EndedDocument, ...]
    """Where the certificate ended up, as the control planes say."""
    status: Status
    reason: str
    """Why it does not agree, was skipped or failed; empty when it agrees."""
    tries: tuple[str, ...]
    """What each try saw."""
    seconds: float | None


class CheckTotals(_Model):
    cases: int
    agree: int
    disagree: int
    oracle_wrong: int
    skipped: int
    failed: int


class CheckDocument(_Model):
    """A conformance check of devicesim."""

    format: Literal[1] = 1
    target: str
    devicesim_version: str
    started_at: float
    """Seconds since the Unix epoch."""
    seconds: float
    agrees: bool
    """Something ran, and whatever ran agrees with the oracle."""
    totals: CheckTotals
    cases: tuple[CaseDocument, ...]
    notes: tuple[str, ...]
    """What could not be removed from an account, among others."""

    def to_json(self) -> str:
        """One indented document."""
        return self.model_dump_json(indent=2)


def document(result: CheckResult) -> CheckDocument:
    return CheckDocument(
        target=result.target,
        devicesim_version=result.version,
        started_at=result.started_at,
        seconds=round(result.seconds, 3),
        agrees=result.agrees,
        totals=CheckTotals(
            cases=len(result.cases),
            agree=result.count(Status.AGREES),
            disagree=result.count(Status.DISAGREES),
            oracle_wrong=result.count(Status.ORACLE_WRONG),
            skipped=result.count(Status.SKIPPED),
            failed=result.count(Status.FAILED),
        ),
        cases=tuple(_case(case) for case in result.cases),
        notes=result.notes,
    )


def _case(case: CaseResult) -> CaseDocument:
    return CaseDocument(
        name=case.name,
        account=case.account,
        sni=case.sni,
        server_name=case.server_name,
        row=_row(case.row),
        rests_on=tuple(_row(row) for row in case.rests_on),
        expected=case.expected,
        observed=case.observed,
        ended=tuple(
            EndedDocument(account=each.account, status=each.status, mode=each.mode, things=each.things)
            for each in case.ended
        ),
        status=case.status,
        reason=case.reason,
        tries=case.tries,
        seconds=None if case.seconds is None else round(case.seconds, 6),
    )


def _row(row: Row) -> OracleRow:
    return OracleRow(id=row.id, says=row.says, mark=row.mark, source=row.source)
