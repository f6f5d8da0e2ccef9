"""The gateway against programs that nobody here wrote: mosquitto's clients and OpenSSL's s_client.

Each test is skipped, with its reason, only where the program is not installed (Debian: ``apt-get install
mosquitto-clients openssl``).
"""

import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import trio

from devicesim.pki.identity import certificate_pem
from tests.emulator_support import A, B
from tests.foreign_support import Emulator, Files, mosquitto, needs, open_emulator, run, words
from tests.gateway_support import until


@needs("mosquitto_pub")
class TestMosquitto:
    @pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
    async def test_first_connection_is_lost_and_the_next_publishes(self, tmp_path: Path, version: str) -> None:
        """§3 "what the device sees": "The connection was lost", and then it works."""
        async with open_emulator(tmp_path) as emulator:
            account = emulator.account()
            emulator.register_ca(account)
            identity, files = emulator.device(1)
            command = mosquitto(emulator, "mosquitto_pub", files, account.endpoint, "-V", version, "-i", "robot-1")
            publish = [*command, "-q", "1", "-t", "t", "-m", "hello"]
            refused = await run(*publish)

            assert refused.returncode != 0
            assert account.certificates[identity.certificate_id].status == "PENDING_ACTIVATION"

            emulator.activate(account, identity)
            accepted = await run(*publish)

            assert (accepted.returncode, accepted.stderr) == (0, b"")

    @pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
    async def test_a_subscriber_gets_what_a_publisher_sends(self, tmp_path: Path, version: str) -> None:
        async with open_emulator(tmp_path) as emulator:
            account = emulator.account()
            emulator.register_ca(account)
            devices = [emulator.device(index) for index in (1, 2)]
            for identity, _ in devices:
                emulator.activate(account, identity)
            (_, sub), (_, pub) = devices
            where = (account.endpoint, "-V", version, "-q", "1")
            subscribe = mosquitto(emulator, "mosquitto_sub", sub, *where, "-i", "s", "-t", "site/+", "-C", "2", "-v")
            results: list[subprocess.CompletedProcess[bytes]] = []

            async def listen() -> None:
                results.append(await run(*subscribe))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen)
                await until(lambda: emulator.plane.load(account).subscriptions == 1)
                for text in ("one", "x" * 100_000):
                    publish = mosquitto(emulator, "mosquitto_pub", pub, *where, "-i", "p", "-t", "site/a", "-m", text)
                    done = await run(*publish)
                    assert (done.returncode, done.stderr) == (0, b"")
            assert results[0].returncode == 0
            assert results[0].stdout.decode().splitlines() == ["site/a one", "site/a " + "x" * 100_000]

    async def test_qos_2_is_refused_by_version(self, tmp_path: Path) -> None:
        async with open_emulator(tmp_path) as emulator:
            account = emulator.account()
            emulator.register_ca(account)
            identity, files = emulator.device(1)
            emulator.activate(account, identity)
            publish = mosquitto(emulator, "mosquitto_pub", files, account.endpoint, "-i", "c", "-t", "t", "-m", "x")
            for version in ("mqttv311", "mqttv5"):
                done = await run(*publish, "-q", "2", "-V", version)
                assert done.returncode != 0 or b"QoS" in done.stderr
            assert emulator.history.select(verdict="disconnected")[0].detail == "PUBLISH with QoS 2"

    async def test_the_will_of_a_client_that_is_killed(self, tmp_path: Path) -> None:
        async with open_emulator(tmp_path) as emulator:
            account = emulator.account()
            emulator.register_ca(account)
            devices = [emulator.device(index) for index in (1, 2)]
            for identity, _ in devices:
                emulator.activate(account, identity)
            (_, watcher), (_, victim) = devices
            watch = mosquitto(
                emulator, "mosquitto_sub", watcher, account.endpoint, "-i", "w", "-t", "wills/#", "-C", "1"
            )
            live = mosquitto(emulator, "mosquitto_sub", victim, account.endpoint, "-i", "v", "-t", "other")
            live += ["--will-topic", "wills/v", "--will-payload", "gone"]
            results: list[subprocess.CompletedProcess[bytes]] = []

            async def listen() -> None:
                results.append(await run(*watch))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen)
                await until(lambda: emulator.plane.load(account).subscriptions == 1)
                process: trio.Process = await nursery.start(partial(trio.run_process, words(live), check=False))
                await until(lambda: emulator.plane.load(account).subscriptions == 2)
                process.kill()
            assert results[0].stdout == b"gone\n"

    async def test_request_and_response_by_mosquitto_rr(self, tmp_path: Path) -> None:
        """MQTT 5's response topic and correlation data (4.10), between two foreign programs."""
        async with open_emulator(tmp_path) as emulator:
            account = emulator.account()
            emulator.register_ca(account)
            devices = [emulator.device(index) for index in (1, 2)]
            for identity, _ in devices:
                emulator.activate(account, identity)
            (_, server), (_, client) = devices
            serve = mosquitto(emulator, "mosquitto_sub", server, account.endpoint, "-V", "mqttv5", "-i", "server")
            serve += ["-t", "ask", "-C", "1", "-F", "%t %R %D %p"]
            ask = mosquitto(emulator, "mosquitto_rr", client, account.endpoint, "-V", "mqttv5", "-i", "client")
            ask += ["-t", "ask", "-e", "answer/client", "-m", "how much?", "-q", "1", "-W", "10"]
            results: dict[str, subprocess.CompletedProcess[bytes]] = {}

            async def start(name: str, command: list[str | Path]) -> None:
                results[name] = await run(*command)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(start, "server", serve)
                await until(lambda: emulator.plane.load(account).subscriptions == 1)
                nursery.start_soon(start, "client", ask)
                await until(lambda: "server" in results)
                reply = mosquitto(emulator, "mosquitto_pub", server, account.endpoint, "-V", "mqttv5", "-i", "server")
                reply += ["-t", "answer/client", "-m", "42"]
                done = await run(*reply)
                assert (done.returncode, done.stderr) == (0, b"")
            topic, response, *_ = results["server"].stdout.decode().split()

            assert (topic, response) == ("ask", "answer/client")
            assert results["server"].stdout.endswith(b"how much?\n")
            assert results["client"].returncode == 0, results["client"].stderr
            assert results["client"].stdout == b"42\n"

    @pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
    async def test_shared_subscribers_divide_the_messages(self, tmp_path: Path, version: str) -> None:
        async with open_emulator(tmp_path) as emulator:
            account = emulator.account()
            emulator.register_ca(account)
            devices = [emulator.device(index) for index in (1, 2, 3)]
            for identity, _ in devices:
                emulator.activate(account, identity)
            (_, one), (_, two), (_, pub) = devices
            where = (account.endpoint, "-V", version, "-q", "1")
            seen: list[bytes] = []

            async def listen(files: Files, name: str) -> None:
                command = mosquitto(
                    emulator, "mosquitto_sub", files, *where, "-i", name, "-t", "$share/g/t", "-t", f"stop/{name}"
                )
                ended = await run(*command, "-C", "16", "-W", "10")
                seen.extend(ended.stdout.splitlines())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen, one, "one")
                nursery.start_soon(listen, two, "two")
                await until(lambda: emulator.plane.load(account).subscriptions == 4)
                lines = b"".join(b"%d\n" % number for number in range(15))
                publish = mosquitto(emulator, "mosquitto_pub", pub, *where, "-i", "p", "-t", "t", "-l")
                done = await run(*publish, stdin=lines)
                assert (done.returncode, done.stderr) == (0, b"")
                for name in ("one", "two"):  # what is missing to 16
                    publish = mosquitto(emulator, "mosquitto_pub", pub, *where, "-i", "p", "-t", f"stop/{name}", "-l")
                    await run(*publish, stdin=b"stop\n" * 16)

            assert sorted(each for each in seen if each != b"stop") == sorted(b"%d" % number for number in range(15))

    async def test_dialling_an_address_sends_it_as_name_and_counts_as_none(self, tmp_path: Path) -> None:
        """RFC 6066 forbids it, mosquitto does it all the same; §4.1 takes it for none."""
        async with open_emulator(tmp_path) as emulator:
            account = emulator.account()
            emulator.register_ca(account, "DEFAULT")
            identity, files = emulator.device(1)
            emulator.activate(account, identity)
            publish = mosquitto(emulator, "mosquitto_pub", files, "127.0.0.1", "-t", "t", "-m", "x")
            publish[5:7] = []  # the address needs no proxy
            done = await run(*publish, "-i", "c")

            assert (done.returncode, done.stderr) == (0, b"")
            assert emulator.history.select(verdict="admitted")[0].server_name in ("127.0.0.1", None)

    async def test_the_old_protocol_is_told_so(self, tmp_path: Path) -> None:
        async with open_emulator(tmp_path) as emulator:
            account = emulator.account()
            _, files = emulator.device(1)
            publish = mosquitto(emulator, "mosquitto_pub", files, account.endpoint, "-V", "mqttv31", "-t", "t")
            done = await run(*publish, "-m", "x")

            assert done.returncode != 0
            assert b"protocol" in done.stderr.lower()

    async def test_a_wrong_root_is_refused_by_the_device(self, tmp_path: Path) -> None:
        async with open_emulator(tmp_path) as emulator:
            account = emulator.account()
            _, files = emulator.device(1)
            other = tmp_path / "other.pem"
            other.write_text(certificate_pem(emulator.ca.certificate))
            publish = mosquitto(emulator, "mosquitto_pub", files, account.endpoint, "-t", "t", "-m", "x")
            publish[publish.index("--cafile") + 1] = other
            done = await run(*publish)

            assert done.returncode != 0
            await until(lambda: bool(emulator.history.select(verdict="handshake_failed")))
            assert "unknown ca" in emulator.history.select()[0].detail


CONNECT = bytes.fromhex("10 0d 0004 4d515454 04 02 003c 0001 63")  # client id "c"
CONNACK = bytes.fromhex("20 02 00 00")


@needs("openssl")
class TestOpenSSL:
    """``openssl s_client -servername`` and ``-noservername``: the way people test it by hand."""

    @pytest.mark.parametrize("tls", ["-tls1_2", "-tls1_3"])
    async def test_servername_decides_the_account(self, tmp_path: Path, tls: str) -> None:
        async with open_emulator(tmp_path) as emulator:
            accounts = [emulator.account(each) for each in (A, B)]
            identity, files = emulator.device(1)
            for account in accounts:
                emulator.register_ca(account)
            emulator.activate(accounts[0], identity)
            session = Session(emulator, files, tls)

            assert await session.answer("-servername", accounts[0].endpoint) == CONNACK
            assert await session.answer("-servername", accounts[1].endpoint) == b""
            assert accounts[1].certificates[identity.certificate_id].status == "PENDING_ACTIVATION"
            assert await session.answer("-servername", "nobody.iot.us-east-1.localhost") == b""
            assert await session.answer("-noservername") == b""

    async def test_noservername_takes_the_default_record_or_the_chain(self, tmp_path: Path) -> None:
        async with open_emulator(tmp_path) as emulator:
            account = emulator.account()
            emulator.register_ca(account, "DEFAULT")
            identity, files = emulator.device(1)

            assert await Session(emulator, files).answer("-noservername") == b""
            assert account.certificates == {}

            chain = tmp_path / "chain.pem"
            chain.write_text(certificate_pem(emulator.ca.certificate))

            assert await Session(emulator, files).answer("-noservername", "-cert_chain", str(chain)) == b""
            assert account.certificates[identity.certificate_id].status == "PENDING_ACTIVATION"

            emulator.activate(account, identity)

            assert await Session(emulator, files).answer("-noservername") == CONNACK

    async def test_the_server_s_chain_and_name_verify(self, tmp_path: Path) -> None:
        async with open_emulator(tmp_path) as emulator:
            account = emulator.account()
            _, files = emulator.device(1)
            session = Session(emulator, files)
            good = await session.verify(account.endpoint)
            bad = await session.verify("somewhere.else.example")

            assert b"Verify return code: 0 (ok)" in good
            assert b"hostname mismatch" in bad.lower()

    @pytest.mark.parametrize("tls", ["-tls1_2", "-tls1_3"])
    async def test_no_session_is_resumed(self, tmp_path: Path, tls: str) -> None:
        """§4.3: no session tickets. OpenSSL sends them in TLS 1.3 all the same; they resume nothing."""
        async with open_emulator(tmp_path) as emulator:
            account = emulator.account()
            identity, files = emulator.device(1)
            emulator.register_ca(account)
            emulator.activate(account, identity)
            session = Session(emulator, files, tls)
            kept = tmp_path / "session"
            first = await session.text("-servername", account.endpoint, "-sess_out", str(kept))
            more = ("-sess_in", str(kept)) if kept.exists() else ()
            second = await session.text("-servername", account.endpoint, *more)

            assert b"New, " in first
            assert b"New, " in second
            assert b"Reused, " not in second

    async def test_alpn(self, tmp_path: Path) -> None:
        async with open_emulator(tmp_path) as emulator:
            _, files = emulator.device(1)
            said = await Session(emulator, files).text("-noservername", "-alpn", "x-amzn-mqtt-ca")

            assert b"ALPN protocol: x-amzn-mqtt-ca" in said


@dataclass
class Session:
    """s_client with one device's certificate."""

    emulator: Emulator
    files: Files
    tls: str = "-tls1_3"

    def command(self, *more: str) -> list[str]:
        emulator = self.emulator
        certificate, key = self.files
        return [
            *("openssl", "s_client", "-connect", f"127.0.0.1:{emulator.port}", "-CAfile", str(emulator.ca_file)),
            *("-cert", str(certificate), "-key", str(key), self.tls, *more),
        ]

    async def answer(self, *more: str) -> bytes:
        """What came back to a CONNECT: CONNACK (then it is told to go), or nothing and the server's close."""
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(
                partial(
                    trio.run_process,
                    [*self.command(*more), "-quiet"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    check=False,
                )
            )
            assert process.stdin is not None
            assert process.stdout is not None
            await process.stdin.send_all(CONNECT)
            data = bytes(await process.stdout.receive_some(100))
            process.terminate()
            return data

    async def text(self, *more: str) -> bytes:
        """What it says of a connection that it ends itself after the CONNECT was answered or refused."""
        done = await run(*self.command(*more), stdin=CONNECT)
        return done.stdout + done.stderr

    async def verify(self, name: str) -> bytes:
        return await self.text("-servername", name, "-verify_hostname", name)
