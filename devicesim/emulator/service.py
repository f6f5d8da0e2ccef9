"""The emulator as a program: its root CA, its listeners, the control plane and the admin port. The wiring, and the only
place with a real clock and real randomness.

    async with trio.open_nursery() as nursery:
        ready = await nursery.start(service.serve, EmulatorConfig(accounts=(...)))
        ...
        nursery.cancel_scope.cancel()

Everything is made anew at each start and gone at the end (keys, accounts, the directory with ``ca_file``), unless a
directory is named that keeps it (:mod:`~devicesim.emulator.store`).
"""

import logging
import random
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
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
from devicesim.emulator.faults import Fault
from devicesim.emulator.gateway import Gateway, Listener
from devicesim.emulator.httpaction import HTTPActions
from devicesim.emulator.httpd import ControlPlaneApp, serve_http
from devicesim.emulator.keypool import KeyPool
from devicesim.emulator.servertls import ServerContexts
from devicesim.emulator.settings import Settings
from devicesim.emulator.store import Store
from devicesim.pki.authority import Authority
from devicesim.pki.identity import certificate_pem
from devicesim.pki.profile import KeyType

_log = logging.getLogger(__name__)

DEFAULT_REGION = "us-east-1"
"""The first front door's Region when no account is configured."""
_ROOT_VALIDITY = timedelta(days=366)
"""Longer than that of the server certificates, which are made at each start."""
_KEPT_ROOT_VALIDITY = timedelta(days=3660)
"""Of one that outlasts the process: clients have it in their trust stores."""
_CHECKPOINT_SECONDS = 1.0
_SLACK = timedelta(hours=2)
_MQTT, _ALPN = False, True
Listeners = Mapping[tuple[str, bool], Listener]
"""By Region, and whether it is the one with ALPN."""


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
    mqtt_alpn_port: int = 0
    """The same for the port that plays 443: MQTT with ALPN ``x-amzn-mqtt-ca``."""
    admin_port: int = 0
    settings: Settings = field(default_factory=Settings)
    faults: tuple[Fault, ...] = ()
    """On the board from the start."""
    seed: int | None = None
    """Makes ids, registration codes and JITP delays the same in every run; never the keys. With ``state``, a start on a
    directory that was used before draws other ones: ids must not come twice."""
    state: Path | None = None
    """A directory that keeps what the accounts hold, and the root's key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountReady:
    name: str
    account_id: str
    region: str
    endpoint: str
    """The server name that selects the account."""
    mqtt_host: str
    mqtt_port: int
    mqtt_alpn_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Where everything is."""

    api: str
    admin: str
    mqtt_host: str
    mqtt_port: int
    """Of the first Region's front door, which also serves Regions that appear later."""
    mqtt_alpn_port: int
    """The same with ALPN."""
    ca_file: Path
    """PEM of the root that devices must trust."""
    accounts: tuple[AccountReady, ...]
    core: Core = field(repr=False, compare=False)
    """What runs, for programs that it is embedded in."""

    def to_json(self) -> Mapping[str, object]:
        """The ready line of ``devicesim emulate`` (design.md §4)."""
        return {
            "ready": True,
            "api": self.api,
            "admin": self.admin,
            "mqtt": {"host": self.mqtt_host, "port": self.mqtt_port},
            "mqtt_alpn": {"host": self.mqtt_host, "port": self.mqtt_alpn_port},
            "ca_file": str(self.ca_file),
            "accounts": [
                {
                    "name": account.name,
                    "account_id": account.account_id,
                    "region": account.region,
                    "endpoint": account.endpoint,
                    "mqtt": {"host": account.mqtt_host, "port": account.mqtt_port},
                    "mqtt_alpn": {"host": account.mqtt_host, "port": account.mqtt_alpn_port},
                }
                for account in self.accounts
            ],
        }


async def serve(config: EmulatorConfig, *, task_status: trio.TaskStatus[Ready] = trio.TASK_STATUS_IGNORED) -> None:
    """Run the emulator until cancelled.

    Raises ``OSError`` when an address cannot be had, ``ValueError`` for an account id that is not twelve digits, and
    :class:`~devicesim.errors.StateError` when the directory for the state cannot be used or written to.
    """
    with ExitStack() as stack:
        store = None if config.state is None else stack.enter_context(_opened(config.state))
        core = _core(config, store)
        if store is None:
            root = _make_root(_ROOT_VALIDITY)
            ca_file = stack.enter_context(_ca_file(root))
        else:
            root, ca_file = store.root, store.ca_file
        contexts = ServerContexts(root, settings=config.settings, now=time.time())
        listeners = stack.enter_context(_listeners(config))
        refused: OSError | None = None
        async with trio.open_nursery() as nursery:
            keys = KeyPool()
            core.registry.environment.issuer.generate_key = keys.take
            nursery.start_soon(keys.run)
            front_door = Gateway(core.plane, contexts, tuple(listeners.values()))
            await nursery.start(front_door.run)
            try:
                ready = await _start_http(config, core, listeners, ca_file, nursery)
            except OSError as exc:  # to be raised as itself, not in the nursery's group
                refused = exc
                nursery.cancel_scope.cancel()
            else:
                if store is not None:
                    nursery.start_soon(_maintain, store)
                _log.info("ready: %s", ready)
                task_status.started(ready)
        if refused is not None:
            raise refused


def _core(config: EmulatorConfig, store: Store | None) -> Core:
    starts = 0 if store is None else store.starts
    seed: int | str | None = config.seed
    if config.seed is not None and starts > 0:
        seed = f"{config.seed} start {starts}"
    generator = random.Random(seed)  # noqa: S311 - delays and ids of an emulator, and repeatable when asked
    core = Core(
        settings=config.settings,
        clock=Clock(wall=time.time, monotonic=trio.current_time),
        randbytes=secrets.token_bytes if config.seed is None else generator.randbytes,
        uniform=generator.uniform,
        fault_seed=generator.getrandbits(32),
    )

    def inject() -> None:
        for fault in config.faults:
            core.faults.inject(fault, core.clock.now())

    inject()
    core.on_reset.append(inject)
    if store is not None:
        store.attach(core)
    core.announce((account.account_id, account.region) for account in config.accounts)
    core.plane.commit()
    return core


async def _start_http(
    config: EmulatorConfig, core: Core, listeners: Listeners, ca_file: Path, nursery: trio.Nursery
) -> Ready:
    """Start the control plane and the admin port, which come last: who can ask finds everything there."""
    await nursery.start(HTTPActions(core.rules, config.settings, commit=lambda: core.plane.commit()).run)
    control_plane = core.control_plane({account.name: account.account_id for account in config.accounts})
    api_port = await nursery.start(serve_http, ControlPlaneApp(control_plane), config.host, config.api_port)
    core.rules.api_url = _url(config.host, api_port)
    admin_app = AdminApp(core, hosts=frozenset({config.host}))
    admin_port = await nursery.start(serve_http, admin_app, config.host, config.admin_port)
    return _ready(config, core, listeners, ca_file, api_port, admin_port)


async def _maintain(store: Store) -> None:
    """Keep the store's log short, in a thread, so that nobody waits for the disk."""
    while True:
        await trio.sleep(_CHECKPOINT_SECONDS)
        if await trio.to_thread.run_sync(store.checkpoint):
            store.truncate()


@contextmanager
def _opened(directory: Path) -> Iterator[Store]:
    store = Store.open(
        directory,
        new_root=lambda: _make_root(_KEPT_ROOT_VALIDITY),
        usable_until=datetime.now(UTC) + _ROOT_VALIDITY,
    )
    try:
        yield store
    finally:
        store.close()


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _ready(
    config: EmulatorConfig,
    core: Core,
    listeners: Listeners,
    ca_file: Path,
    api_port: int,
    admin_port: int,
) -> Ready:
    return Ready(
        api=_url(config.host, api_port),
        admin=_url(config.host, admin_port),
        mqtt_host=config.host,
        mqtt_port=next(each for each in listeners.values() if not each.door.alpn).port,
        mqtt_alpn_port=next(each for each in listeners.values() if each.door.alpn).port,
        ca_file=ca_file,
        accounts=tuple(
            AccountReady(
                name=account.name,
                account_id=account.account_id,
                region=account.region,
                endpoint=core.registry.partition(account.account_id, account.region).endpoint,
                mqtt_host=config.host,
                mqtt_port=listeners[account.region, _MQTT].port,
                mqtt_alpn_port=listeners[account.region, _ALPN].port,
            )
            for account in config.accounts
        ),
        core=core,
    )


def _make_root(validity: timedelta) -> Authority:
    moment = datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "devicesim emulator root")])
    return Authority.create(
        subject=subject,
        key_type=KeyType.EC_P256,
        not_before=moment - _SLACK,
        not_after=moment + validity,
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
def _listeners(config: EmulatorConfig) -> Iterator[Listeners]:
    """Two for each Region in the order of the accounts; all or none. The gateway closes them, too."""
    regions = list(dict.fromkeys(account.region for account in config.accounts)) or [DEFAULT_REGION]
    ports = {_MQTT: config.mqtt_port, _ALPN: config.mqtt_alpn_port}
    listeners: dict[tuple[str, bool], Listener] = {}
    try:
        for region in regions:
            first = region == regions[0]
            elsewhere = frozenset(regions[1:]) if first else None
            for alpn, port in ports.items():
                door = Door(region=region, elsewhere=elsewhere, alpn=alpn)
                listeners[region, alpn] = gateway.bind(door, config.host, port if first else 0)
        yield listeners
    finally:
        for listener in listeners.values():
            listener.sock.close()
