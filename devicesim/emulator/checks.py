"""The checks of a CONNECT, one by one, and who listens to them. Pure.

:mod:`~devicesim.emulator.admission` makes them; :mod:`~devicesim.emulator.explain` tells of them.
"""

from dataclasses import dataclass, field
from enum import StrEnum


class Stop(StrEnum):
    """The checks of a CONNECT one by one, in the order in which they are made; what an explanation is made of."""

    SERVER_NAME = "server_name"
    """What was sent as server name can be looked up, or nothing was sent."""
    ACCOUNT = "account"
    """It is an account's endpoint in this Region; without one, an account answers in DEFAULT mode."""
    CERTIFICATE = "certificate_present"
    VALIDITY = "validity"
    RECORD = "record"
    """Whether the account has a record of the certificate; passed either way, and the way parts here."""
    STATUS = "status"
    CA = "ca"
    """Of an unknown certificate: a CA of the account signed it, and is ACTIVE."""
    AUTO_REGISTRATION = "auto_registration"
    TEMPLATE = "template"
    """JITP: whether the template could be filled in for this certificate. Not part of the decision."""
    POLICY = "policy"
    QUOTAS = "quotas"
    """Asked by the data plane, not here."""
    FAULTS = "faults"
    """As the quotas."""
    LIMITS = "limits"
    """What the CONNECT asks for is within AWS's limits. Asked when it is let in, as is the next."""
    WILL = "will"
    """The policies allow its will."""


@dataclass(slots=True)
class Trace:
    """Listens to :func:`decide`: which checks were passed and why, and which one was the last to be begun."""

    passed: list[tuple[Stop, str]] = field(default_factory=list)
    at: Stop = Stop.SERVER_NAME

    def __call__(self, check: Stop, detail: str, then: Stop) -> None:
        """``check`` is passed, and the next is ``then``."""
        self.passed.append((check, detail))
        self.at = then
