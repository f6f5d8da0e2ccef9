"""Settings, deadlines and names: what is refused before anything is sent."""

import pytest
import trio
import trio.testing
from OpenSSL import crypto
from service_identity.exceptions import VerificationError

from devicesim.net.failures import ConnectionFailed
from devicesim.net.tls import (
    Deadlines,
    TLSContext,
    TLSSettings,
    under_way,
)
from devicesim.outcome import Alert, FailureKind, Stage, Trace
from tests.net_support import server_identity


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"minimum_version": "TLSv1.1"}, "minimum_version 'TLSv1.1' is not one of TLSv1.2, TLSv1.3"),
        ({"maximum_version": "SSLv3"}, "maximum_version 'SSLv3' is not one of"),
        ({"minimum_version": "TLSv1.3", "maximum_version": "TLSv1.2"}, "'TLSv1.3' is above 'TLSv1.2'"),
        ({"group": "X25519"}, "group 'X25519' is not one of P-256, P-384, P-521, any"),
        ({"alpn": ("",)}, "ALPN protocol '' is not 1 to 255 ASCII characters"),
        ({"alpn": ("x" * 256,)}, "ALPN protocol"),
        ({"alpn": ("mqtt", "ü")}, "ALPN protocol 'ü'"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        TLSSettings(roots=(), **wrong)  # type: ignore[arg-type]  # on purpose

    assert message in str(caught.value)


@pytest.mark.parametrize("ciphers", ["NO-SUCH-CIPHER", "TLS_NO_SUCH_SUITE", "ÄES"])
def test_unknown_ciphers_are_refused(ciphers: str) -> None:
    with pytest.raises(ValueError, match=f"ciphers '{ciphers}' name no cipher that OpenSSL knows"):
        TLSContext(TLSSettings(roots=(), ciphers=ciphers))


@pytest.mark.parametrize("name", ["tcp", "tls", "connect", "connack", "request", "close"])
@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_deadline_is_more_than_nothing(name: str, seconds: float) -> None:
    with pytest.raises(ValueError, match=f"deadline {name} is {seconds!r}"):
        Deadlines(**{name: seconds})


def test_names_verified_are_remembered_but_not_without_end() -> None:
    context = TLSContext(TLSSettings(roots=()))
    leaf = server_identity("*.iot.eu-west-1.localhost").certificate
    certificate, other = (
        crypto.X509.from_cryptography(each) for each in (leaf, server_identity("elsewhere.localhost").certificate)
    )

    for number in range(600):
        assert context._name_refusal(certificate, f"account-{number}.iot.eu-west-1.localhost") is None

    assert 0 < len(context._names_verified) <= 256
    for _ in range(2):
        assert context._name_refusal(certificate, "account-599.iot.eu-west-1.localhost") is None
        refusal = context._name_refusal(certificate, "account-1.iot.eu-west-2.localhost")
        assert isinstance(refusal, VerificationError)
        # another certificate for a name that was verified
        refusal = context._name_refusal(other, "account-599.iot.eu-west-1.localhost")
        assert isinstance(refusal, VerificationError)


async def test_a_stage_follows_another_with_its_own_deadline(autojump_clock: trio.testing.MockClock) -> None:
    way = under_way(Stage.TCP, 5, Trace(start=0))

    async def stages() -> None:
        with way:
            await trio.sleep(4)
            way.then(Stage.TLS, 3)
            await trio.sleep(2)
            way.then(Stage.CONNACK, 7)
            await trio.sleep_forever()

    with pytest.raises(ConnectionFailed) as caught:
        await stages()

    assert caught.value.failure.stage is Stage.CONNACK
    assert caught.value.failure.detail == "no CONNACK within 7 s"
    assert trio.current_time() == 13


# --- a stage under way


async def test_a_stage_that_is_done_in_time_says_nothing() -> None:
    with under_way(Stage.TLS, 5, Trace(start=0)):
        await trio.lowlevel.checkpoint()


async def test_a_stage_that_is_late_is_a_timeout_of_that_stage(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(ConnectionFailed) as caught, under_way(Stage.CONNACK, 5, Trace(start=0)):
        await trio.sleep_forever()

    assert caught.value.failure.kind is FailureKind.TIMEOUT
    assert caught.value.failure.stage is Stage.CONNACK
    assert caught.value.failure.detail == "no CONNACK within 5 s"
    assert trio.current_time() == 5


async def test_what_is_awaited_can_be_said(autojump_clock: trio.testing.MockClock) -> None:
    late = under_way(Stage.SESSION, 0.5, Trace(start=0), "PUBACK")
    with pytest.raises(ConnectionFailed, match=r"no PUBACK within 0\.5 s"), late:
        await trio.sleep_forever()


async def test_a_foreign_exception_leaves_as_a_failure_with_its_cause() -> None:
    foreign = OSError(111, "Connection refused")

    with pytest.raises(ConnectionFailed) as caught, under_way(Stage.TCP, 5, Trace(start=0)):
        raise foreign

    assert caught.value.failure.kind is FailureKind.TCP_REFUSED
    assert caught.value.__cause__ is foreign


async def test_the_traces_alert_is_what_a_failure_is_told_by() -> None:
    trace = Trace(start=0)
    trace.alert = Alert(name="access_denied", code=49, level="fatal", direction="received")

    refused = pytest.raises(ConnectionFailed, match="tls_alert at connack: access_denied")
    with refused, under_way(Stage.CONNACK, 5, trace):
        raise ConnectionResetError


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("x")], ids=repr)
async def test_programming_errors_are_let_through(error: Exception) -> None:
    with pytest.raises(type(error)), under_way(Stage.TLS, 5, Trace(start=0)):
        raise error


async def test_an_outer_cancellation_is_no_timeout_of_ours(autojump_clock: trio.testing.MockClock) -> None:
    with trio.move_on_after(1) as outer, under_way(Stage.TLS, 5, Trace(start=0)):
        await trio.sleep_forever()

    assert outer.cancelled_caught
