"""How a device speaks MQTT, as a fleet file may set it. Pure."""

from dataclasses import dataclass

from devicesim.net.engine import VERSIONS, Version

_MAX_KEEP_ALIVE = 65_535
_MAX_SESSION_EXPIRY = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class MQTTSettings:
    """How a device speaks MQTT."""

    version: Version = "3.1.1"
    keep_alive: int = 60
    """Seconds between two packets of ours, at most; 0 for none. AWS clamps it to 30..1200 (aws-iot-behaviour.md 5)."""
    clean_start: bool = True
    """Clean Start of MQTT 5, Clean Session of 3.1.1."""
    session_expiry: int = 0
    """Seconds that the server keeps the session after the connection; MQTT 5 only."""
    receive_buffer: int = 100
    """Messages that may wait to be received. When they do, no more is read from the server, so that TCP makes it wait;
    nothing is dropped."""

    def __post_init__(self) -> None:
        if self.version not in VERSIONS:
            raise ValueError(f"MQTT version {self.version!r} is not one of {', '.join(VERSIONS)}")
        if not 0 <= self.keep_alive <= _MAX_KEEP_ALIVE:
            raise ValueError(f"keep_alive {self.keep_alive!r} is not 0 to {_MAX_KEEP_ALIVE} seconds")
        if not 0 <= self.session_expiry <= _MAX_SESSION_EXPIRY:
            raise ValueError(f"session_expiry {self.session_expiry!r} is not 0 to {_MAX_SESSION_EXPIRY} seconds")
        if self.session_expiry and self.version != "5":
            raise ValueError(f"session_expiry needs MQTT version '5', not {self.version!r}")
        if self.receive_buffer < 1:
            raise ValueError(f"receive_buffer {self.receive_buffer!r} is below 1")
