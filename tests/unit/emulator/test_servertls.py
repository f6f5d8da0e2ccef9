"""OpenSSL's errors in one line each. Handshakes are tried in tests/integration/test_gateway.py."""

import pytest
from OpenSSL import SSL

from devicesim.emulator import servertls
from devicesim.emulator.servertls import Flaw, ServerContexts, Shown, custom_domain, describe
from devicesim.emulator.settings import Settings
from tests.emulator_support import EPOCH, shared_ca


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SSL.Error([("SSL routines", "", "http request")]), "http request"),
        (SSL.Error([("a", "b", "first"), ("a", "b", "second")]), "first; second"),
        (SSL.Error([]), "TLS failed without a reason"),
        (SSL.Error(), "TLS failed without a reason"),
        (SSL.ZeroReturnError(), "the client closed the connection with close_notify"),
        (SSL.SysCallError(-1, "Unexpected EOF"), "the client closed the connection"),
        (SSL.SysCallError(104, "ECONNRESET"), "ECONNRESET"),
        (SSL.SysCallError(104), "104"),
        (SSL.SysCallError(), "TLS failed without a reason"),
    ],
)
def test_describe(error: SSL.Error, text: str) -> None:
    assert describe(error) == text


def make(**fields: object) -> ServerContexts:
    return ServerContexts(shared_ca(), settings=Settings(**fields), now=EPOCH.timestamp())  # type: ignore[arg-type]


def test_what_is_shown_is_made_once() -> None:
    contexts = make()

    assert contexts.context(Shown("us-east-1")) is contexts.context(Shown("us-east-1"))
    assert contexts.context(Shown("us-east-1")) is not contexts.context(Shown("eu-west-1"))
    assert contexts.context(Shown("us-east-1")) is not contexts.context(Shown("us-east-1", alpn=True))


def test_one_that_expires_is_kept_for_a_second() -> None:
    contexts = make()
    now = EPOCH.timestamp()
    contexts.clock = lambda: now
    first, other = (Shown("us-east-1", flaw=Flaw.EXPIRING, seconds=seconds) for seconds in (60, 120))
    made = contexts.context(first)
    now += 0.9
    contexts.context(other)

    assert contexts.context(first) is made
    now += 0.2
    assert contexts.context(first) is not made


def test_contexts_of_domains_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servertls, "_MAX_CONTEXTS", 3)
    contexts = make()
    kept = contexts.context(Shown("us-east-1"))
    for number in range(10):
        contexts.context(Shown("us-east-1", domain=f"d{number}.example.com"))
        assert contexts.context(Shown("us-east-1")) is kept  # in use

    assert len(contexts._contexts) == 3


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("a1b2-ats.iot.us-east-1.localhost", None),
        ("a1b2.iot.us-east-1.localhost", None),
        ("a1b2-ats.iot.eu-west-1.localhost", "a1b2-ats.iot.eu-west-1.localhost"),
        ("a.b.iot.us-east-1.localhost", "a.b.iot.us-east-1.localhost"),
        ("iot.us-east-1.localhost", "iot.us-east-1.localhost"),
        ("iot.example.com", "iot.example.com"),
    ],
)
def test_a_custom_domain_is_what_the_region_s_wildcard_does_not_cover(name: str, domain: str | None) -> None:
    assert custom_domain(name, "us-east-1") == domain
