"""``devicesim probe``: one connection, told step by step, through CONNACK."""

import json
import math
import signal
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click
import trio
from cryptography import x509
from rich.console import Console, RenderableType

from devicesim.cli.options import Seconds, host_and_port
from devicesim.cli.probemeaning import ALPN_PORT, MQTT_ALPN, Story, exit_code
from devicesim.cli.probetext import document, ending, title, told
from devicesim.errors import KeyMaterialError
from devicesim.fleet.identities import common_name
from devicesim.net.engine import Version
from devicesim.net.mqtt import MQTTSettings
from devicesim.net.names import check_server_name, check_verify_name, is_ip_literal
from devicesim.net.probe import Probe, probe
from devicesim.net.steps import Told
from devicesim.net.tls import Deadlines, Group, TLSSettings
from devicesim.net.tls import Version as TLSVersion
from devicesim.outcome import Failure
from devicesim.pki import keyfile
from devicesim.pki.identity import Identity, load_certificates, load_private_key, require_match

MQTT_PORT = 8883
CLIENT_ID = "devicesim-probe"
"""Of a connection without a certificate, whose CN it would be."""
MAX_CLIENT_ID = 65_535
"""Bytes that a string of MQTT has room for (MQTT 5, 1.5.4). AWS takes 128."""
CLOSE_SECONDS = 2.0
"""At most, to wait for the server's end after our DISCONNECT."""
_TLS_VERSIONS: Mapping[str, TLSVersion] = {"1.2": "TLSv1.2", "1.3": "TLSv1.3"}
_MQTT_VERSIONS: Mapping[str, Version] = {"3.1.1": "3.1.1", "4": "3.1.1", "5": "5"}
"""4 is what 3.1.1 calls itself on the wire, and what emqtt-bench calls it."""

_FILE = click.Path(path_type=Path)


def _check_alpn(_ctx: click.Context, _param: click.Parameter, protocols: tuple[str, ...]) -> tuple[str, ...]:
    try:
        TLSSettings(roots=(), alpn=protocols)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc
    return protocols


@click.command(name="probe")
@click.argument("endpoint", metavar="ENDPOINT")
@click.option("--cert", type=_FILE, metavar="FILE", help="PEM client certificate, its issuers, its key unless --key.")
@click.option("--key", type=_FILE, metavar="FILE", help="PEM private key of --cert.")
@click.option("--cacert", type=_FILE, metavar="FILE", help="PEM roots to trust; left out: Amazon Root CA 1 to 4.")
@click.option("--servername", metavar="NAME", help="Send this as server name (SNI); left out: the endpoint's host.")
@click.option("--noservername", is_flag=True, help="Send no server name (SNI).")
@click.option("--verify-name", metavar="NAME", help="What the server's certificate must be for; left out: the host.")
@click.option("--connect-to", metavar="HOST:PORT", help="Dial this in place of the endpoint; the names stay.")
@click.option(
    "--alpn",
    multiple=True,
    metavar="PROTOCOL",
    callback=_check_alpn,
    help=f"Offer this by ALPN, such as {MQTT_ALPN}; repeatable.",
)
@click.option("--tls-version", type=click.Choice(list(_TLS_VERSIONS)), help="Offer only this; left out: both.")
@click.option(
    "--group",
    type=click.Choice(["P-256", "P-384", "P-521", "any"]),
    default="P-256",
    show_default=True,
    help="Key-exchange group to offer; any: OpenSSL's own list.",
)
@click.option(
    "-V",
    "--mqtt-version",
    type=click.Choice(list(_MQTT_VERSIONS)),
    default="3.1.1",
    metavar="[3.1.1|5]",
    show_default=True,
)
@click.option("--client-id", metavar="ID", help="MQTT client id; left out: the certificate's CN.")
@click.option("--no-chain", is_flag=True, help="Send the client certificate without its issuers.")
@click.option("--keepalive", type=click.IntRange(0, 65_535), default=60, show_default=True, metavar="SECONDS")
@click.option(
    "--hold",
    type=Seconds(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Stay connected so long, tell what happens.",
)
@click.option(
    "--deadline",
    type=Seconds(min=0, min_open=True),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="At most, for TCP, TLS, CONNECT and CONNACK each.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, the steps as a list, at the end.")
def command(
    endpoint: str,
    cert: Path | None,
    key: Path | None,
    cacert: Path | None,
    servername: str | None,
    noservername: bool,
    verify_name: str | None,
    connect_to: str | None,
    alpn: tuple[str, ...],
    tls_version: str | None,
    group: Group,
    mqtt_version: str,
    client_id: str | None,
    no_chain: bool,
    keepalive: int,
    hold: float,
    deadline: float,
    as_json: bool,
) -> int:
    """Open one connection to ENDPOINT (HOST or HOST:PORT) and tell it step by step, through CONNACK.

    The port is 8883 if none is named, 443 with --alpn x-amzn-mqtt-ca. Without --cert no client certificate is sent.

    Exit code 0: CONNACK 0, and with --hold the connection lasted. 3: the target could not be reached, or is not who it
    should be. 99: refused, or failed otherwise. 2: usage, or key material. 105: interrupted.
    """
    if servername is not None and noservername:
        raise click.UsageError("--servername and --noservername exclude each other")
    if key is not None and cert is None:
        raise click.UsageError("--key goes with --cert")
    host, port = host_and_port(endpoint, "ENDPOINT", ALPN_PORT if MQTT_ALPN in alpn else MQTT_PORT)
    _check_host(host, endpoint)
    identity = None if cert is None else _load_identity(cert, key)
    roots, of = _load_roots(cacert)
    version = None if tls_version is None else _TLS_VERSIONS[tls_version]
    asked = Probe(
        address=(host, port) if connect_to is None else host_and_port(connect_to, "--connect-to"),
        server_name=None if noservername else _server_name(servername, host),
        verify_name=host if verify_name is None else _verify_name(verify_name),
        client_id=_client_id(client_id, identity),
        identity=identity,
        tls=TLSSettings(
            roots=roots,
            minimum_version=version or "TLSv1.2",
            maximum_version=version or "TLSv1.3",
            group=group,
            alpn=alpn,
            send_chain=not no_chain,
            chain=() if identity is None else identity.chain,
        ),
        mqtt=MQTTSettings(version=_MQTT_VERSIONS[mqtt_version], keep_alive=keepalive),
        deadlines=Deadlines(
            tcp=deadline,
            tls=deadline,
            connect=deadline,
            connack=deadline,
            request=deadline,
            close=min(deadline, CLOSE_SECONDS),
        ),
        hold=hold,
    )
    story = Story(host=host, port=port, roots=of, asked=asked, now=datetime.now(UTC), told=(), failure=None)
    return trio.run(_main, story, as_json)


class _Console(Console):
    """Leaves a reader that has gone to :mod:`devicesim.cli.main`, as everything else does; rich would exit."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


async def _main(story: Story, as_json: bool) -> int:
    """Probe under the signals: the first one ends it, told all the same."""
    run = _Run(story, None if as_json else _Console(highlight=False))
    run.show(title(story))
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run.watch, signals)
            await run.execute()
            nursery.cancel_scope.cancel()
    if run.broken is not None:
        raise run.broken
    ended = run.story
    run.show("")
    run.show(ending(ended))
    if as_json:
        click.echo(json.dumps(document(ended), indent=2))
    return exit_code(ended)


class _Run:
    """A probe under way, and what is printed of it.

    Steps are told from inside OpenSSL, which lets no exception through, and printing may raise: so they go through a
    channel to a task that prints.
    """

    def __init__(self, story: Story, console: Console | None) -> None:
        self._story = story
        self._console = console
        self._told: list[Told] = []
        self._failure: Failure | None = None
        self._scope = trio.CancelScope()
        self._interrupted = False
        self.broken: OSError | None = None
        """What keeps us from printing: the reader has gone, the disk is full."""

    @property
    def story(self) -> Story:
        """As far as it has come."""
        return replace(self._story, told=tuple(self._told), failure=self._failure, interrupted=self._interrupted)

    def show(self, renderable: RenderableType) -> None:
        if self._console is None or self.broken is not None:
            return
        try:
            self._console.print(renderable)
        except OSError as exc:
            self.broken = exc
            self._scope.cancel()

    async def execute(self) -> None:
        """Make the connection, told as it goes; ends when all is printed."""
        sending, receiving = trio.open_memory_channel[Told](math.inf)

        def tell(each: Told) -> None:
            self._told.append(each)
            sending.send_nowait(each)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._print, receiving)
            with sending, self._scope:
                self._failure = await probe(self._story.asked, tell)

    async def _print(self, receiving: trio.MemoryReceiveChannel[Told]) -> None:
        async for each in receiving:
            self.show(told(each, self._story.now))

    async def watch(self, signals: AsyncIterator[int]) -> None:
        async for _ in signals:
            self._interrupted = True
            self._scope.cancel()


# --- what the options say


def _load_identity(cert: Path, key: Path | None) -> Identity:
    """The client certificate, its issuers and its key: out of one file or two."""
    pem = keyfile.read(cert)
    if key is None and b"PRIVATE KEY-----" not in pem:
        raise KeyMaterialError(f"{cert} holds no private key", hint="name its file: --key FILE")
    source = str(key or cert)
    private = load_private_key(pem if key is None else keyfile.read(key), source)
    leaf, *chain = load_certificates(pem, str(cert))
    require_match(private, leaf, str(cert) if key is None else f"{cert} and {key}")
    return Identity(key=private, certificate=leaf, chain=tuple(chain))


def _load_roots(cacert: Path | None) -> tuple[tuple[x509.Certificate, ...], str]:
    """What is trusted, and how to call it."""
    if cacert is not None:
        return load_certificates(keyfile.read(cacert), str(cacert)), f"those of {cacert}"
    from devicesim.fleet.target import amazon_roots  # imports boto3, a quarter of a second that --cacert does not need

    return amazon_roots(), "Amazon Root CA 1 to 4"


def _client_id(given: str | None, identity: Identity | None) -> str:
    if given is None:
        return CLIENT_ID if identity is None else common_name(identity)
    try:
        size = len(given.encode("utf-8"))
    except UnicodeEncodeError as exc:
        raise click.BadParameter(f"{given!r} is no text in UTF-8", param_hint="--client-id") from exc
    if size > MAX_CLIENT_ID:
        raise click.BadParameter(f"{size} bytes; MQTT has room for {MAX_CLIENT_ID}", param_hint="--client-id")
    return given


def _server_name(given: str | None, host: str) -> str | None:
    """What is sent: the endpoint's host unless another name is given. An address is none (RFC 6066, 3)."""
    if given is None and is_ip_literal(host):
        return None
    name = host if given is None else given
    try:
        check_server_name(name)
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="--servername") from exc
    return name


def _verify_name(given: str) -> str:
    try:
        check_verify_name(given)
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="--verify-name") from exc
    return given


def _check_host(host: str, endpoint: str) -> None:
    try:
        check_verify_name(host)
    except ValueError as exc:
        raise click.BadParameter(f"{endpoint!r} is not HOST or HOST:PORT", param_hint="ENDPOINT") from exc
