"""The emulator as a program: its root CA, its listeners, the control plane and the admin port. The wiring, and the only
place with a real clock and real randomness.

    async with trio.open_nursery() as nursery:
        ready = await nursery.start(service.serve, EmulatorConfig(accounts=(...)))
        ...
        nursery.cancel_scope.cancel()

Everything is made anew at each start and gone at the end: keys, accounts, the directory with ``ca_file``.
"""

import logging
import random
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trio
from cryptography import x509
from cryptography.x509.oid import NameOID

from devicesim.emulator import gateway
from devicesim.emulator.admin import AdminApp
from devicesim.emulator.admission import Door
from devicesim.emulator.clock import Clock
from devicesim.emulator.core import Core
from devicesim.emulator.gateway import Gateway, Listener
from devicesim.emulator.httpd import ControlPlaneApp, serve_http
from devicesim.emulator.registry import Registry
from devicesim.emulator.servertls import ServerContexts
from devicesim.emulator.settings import Settings
from devicesim.pki.authority import Authority
from devicesim.pki.identity import certificate_pem
from devicesim.pki.profile import KeyType

_log = logging.getLogger(__name__)

DEFAULT_REGION = "us-east-1"
"""The first front door's Region when no account is configured."""
_ROOT_VALIDITY = timedelta(days=366)
_SLACK = timedelta(hours=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountConfig:
    """An account that is announced when the emulator is ready. Others come into being when the API is asked for."""

    name: str
    account_id: str
    """Twelve digits."""
    region: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatorConfig:
    accounts: tuple[AccountConfig, ...]
    host: str = "127.0.0.1"
    api_port: int = 0
    mqtt_port: int = 0
    """Of the first account's Region; the others' take free ports."""
    admin_port: int = 0
    settings: Settings = field(default_factory=Settings)
    seed: int | None = None
    """Makes ids, registration codes and JITP delays the same in every run; never the keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountReady:
    name: str
    account_id: str
    region: str
    endpoint: str
    """The server name that selects the account."""
    mqtt_host: str
    mqtt_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Where everything is."""

    api: str
    admin: str
    mqtt_host: str
    mqtt_port: int
    """Of the first Region's front door, which also serves Regions that appear later."""
    ca_file: Path
    """PEM of the root that devices must trust."""
    accounts: tuple[AccountReady, ...]

    def to_json(self) -> Mapping[str, object]:
        """The ready line of ``devicesim emulate`` (design.md §4)."""
        return {
            "ready": True,
            "api": self.api,
            "admin": self.admin,
            "mqtt": {"host": self.mqtt_host, "port": self.mqtt_port},
            "ca_file": str(self.ca_file),
            "accounts": [
                {
                    "name": account.name,
                    "account_id": account.account_id,
                    "region": account.region,
                    "endpoint": account.endpoint,
                    "mqtt": {"host": account.mqtt_host, "port": account.mqtt_port},
                }
                for account in self.accounts
            ],
        }


async def serve(config: EmulatorConfig, *, task_status: trio.TaskStatus[Ready] = trio.TASK_STATUS_IGNORED) -> None:
    """Run the emulator until cancelled.

    Raises ``OSError`` when an address cannot be had, ``ValueError`` for an account id that is not twelve digits.
    """
    generator = random.Random(config.seed)  # noqa: S311 - delays and ids of an emulator, and repeatable when asked
    randbytes = secrets.token_bytes if config.seed is None else generator.randbytes
    core = Core(
        settings=config.settings,
        clock=Clock(wall=time.time, monotonic=trio.current_time),
        randbytes=randbytes,
        uniform=generator.uniform,
    )
    registry, plane = core.registry, core.plane
    for account in config.accounts:
        registry.partition(account.account_id, account.region)
    now = time.time()
    root = _make_root(now)
    contexts = ServerContexts(root, settings=config.settings, now=now)
    with _ca_file(root) as ca_file, _listeners(config) as listeners:
        control_plane = core.control_plane({account.name: account.account_id for account in config.accounts})
        refused: OSError | None = None
        async with trio.open_nursery() as nursery:
            front_door = Gateway(plane, contexts, tuple(listeners.values()))
            await nursery.start(front_door.run)
            try:
                api_port = await nursery.start(serve_http, ControlPlaneApp(control_plane), config.host, config.api_port)
                admin_port = await nursery.start(serve_http, AdminApp(plane), config.host, config.admin_port)
            except OSError as exc:  # to be raised as itself, not in the nursery's group
                refused = exc
                nursery.cancel_scope.cancel()
            else:
                ready = _ready(config, registry, listeners, ca_file, api_port, admin_port)
                _log.info("ready: %s", ready)
                task_status.started(ready)
        if refused is not None:
            raise refused


def _ready(
    config: EmulatorConfig,
    registry: Registry,
    listeners: Mapping[str, Listener],
    ca_file: Path,
    api_port: int,
    admin_port: int,
) -> Ready:
    host = f"[{config.host}]" if ":" in config.host else config.host
    return Ready(
        api=f"http://{host}:{api_port}",
        admin=f"http://{host}:{admin_port}",
        mqtt_host=config.host,
        mqtt_port=next(iter(listeners.values())).port,
        ca_file=ca_file,
        accounts=tuple(
            AccountReady(
                name=account.name,
                account_id=account.account_id,
                region=account.region,
                endpoint=registry.partition(account.account_id, account.region).endpoint,
                mqtt_host=config.host,
                mqtt_port=listeners[account.region].port,
            )
            for account in config.accounts
        ),
    )


def _make_root(now: float) -> Authority:
    moment = datetime.fromtimestamp(now, UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "devicesim emulator root")])
    return Authority.create(
        subject=subject,
        key_type=KeyType.EC_P256,
        not_before=moment - _SLACK,
        not_after=moment + _ROOT_VALIDITY,
        path_length=0,
    )


@contextmanager
def _ca_file(root: Authority) -> Iterator[Path]:
    """The root's certificate on disk, for clients that want a file; its key never is."""
    with tempfile.TemporaryDirectory(prefix="devicesim-") as directory:
        path = Path(directory, "ca.pem")
        path.write_text(certificate_pem(root.certificate), encoding="ascii")
        yield path


@contextmanager
def _listeners(config: EmulatorConfig) -> Iterator[Mapping[str, Listener]]:
    """One for each Region in the order of the accounts; all or none. The gateway closes them, too."""
    regions = list(dict.fromkeys(account.region for account in config.accounts)) or [DEFAULT_REGION]
    listeners: dict[str, Listener] = {}
    try:
        for region in regions:
            first = region == regions[0]
            door = Door(region=region, elsewhere=frozenset(regions[1:]) if first else None)
            listeners[region] = gateway.bind(door, config.host, config.mqtt_port if first else 0)
        yield listeners
    finally:
        for listener in listeners.values():
            listener.sock.close()
