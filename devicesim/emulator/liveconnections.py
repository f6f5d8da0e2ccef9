"""Which certificate is connected where, and what a change of it does to its connections (§1.4). Pure."""

from collections.abc import Iterator

from devicesim.emulator.connection import DisconnectReason, Phase
from devicesim.emulator.deviceconnection import DeviceConnection
from devicesim.emulator.packets import ReasonCode
from devicesim.emulator.state.records import (
    CertificateChange,
    CertificateChangeKind,
    CertificateStatus,
    DeviceCertificate,
)

_NO_CHANGE_FELT = frozenset({CertificateChangeKind.REGISTERED, CertificateChangeKind.THINGS})
"""Changes that no live connection feels: what an attached thing means for policies counts from the next packet on."""


class LiveConnections:
    """Admitted connections by account, Region and certificate id."""

    def __init__(self) -> None:
        self._live: dict[tuple[str, str, str], dict[DeviceConnection, None]] = {}

    def __iter__(self) -> Iterator[DeviceConnection]:
        for connections in self._live.values():
            yield from connections

    def add(self, connection: DeviceConnection) -> None:
        self._live.setdefault(_key(connection), {})[connection] = None

    def remove(self, connection: DeviceConnection) -> None:
        key = _key(connection)
        connections = self._live[key]
        del connections[connection]
        if not connections:
            del self._live[key]

    def certificate_changed(self, change: CertificateChange) -> bool:
        """A certificate that is no longer ACTIVE, or may no longer connect, takes its connections with it (AWS needs "a
        few minutes", we none); whether there was any."""
        connections = self._live.get((change.account_id, change.region, change.certificate_id))
        if not connections or change.kind in _NO_CHANGE_FELT:
            return False
        for connection in tuple(connections):
            _check(connection, change.certificate)
        return True


def caught_up(connection: DeviceConnection, _now: float) -> None:
    """The connection was admitted by what its certificate had been: look again."""
    if connection.phase is Phase.LIVE and connection.partition is not None:
        _check(connection, connection.partition.certificates.get(connection.presented.certificate_id or ""))


def _check(connection: DeviceConnection, record: DeviceCertificate | None) -> None:
    if record is None or record.status is not CertificateStatus.ACTIVE:
        detail = "the certificate was deleted" if record is None else f"the certificate became {record.status}"
    elif not connection.permissions.allows("iot:Connect", "client", connection.client_id):
        detail = "no policy allows iot:Connect any more"
    else:
        return
    connection.fail(ReasonCode.NOT_AUTHORIZED, detail, reason=DisconnectReason.AUTH_ERROR)


def _key(connection: DeviceConnection) -> tuple[str, str, str]:
    partition, certificate_id = connection.partition, connection.presented.certificate_id
    assert partition is not None
    assert certificate_id is not None
    return partition.account_id, partition.region, certificate_id
