"""Two tries of one device, and its tags."""

from dataclasses import replace

from devicesim.outcome import Attempt, Failure, FailureKind, Stage
from devicesim.record.metrics import Tags

ROBOTS = Tags(group="robots", account="prod")
DROP = Failure(kind=FailureKind.CLOSED_BEFORE_CONNACK, stage=Stage.CONNACK)
REFUSED = Attempt(
    device=0,
    number=1,
    account="prod",
    sni=None,
    intended_start=100.0,
    start=100.25,
    end=101.0,
    reached={Stage.TCP: 0.125, Stage.TLS: 0.5, Stage.CONNECT: 0.5},
    failure=DROP,
    tls_version=None,
    cipher=None,
    alert=None,
    connack_code=None,
)
ACCEPTED = replace(
    REFUSED,
    number=2,
    intended_start=104.0,
    start=104.0,
    end=105.0,
    reached={**REFUSED.reached, Stage.CONNACK: 0.75},
    failure=None,
    connack_code=0,
)
