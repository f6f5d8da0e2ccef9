"""OpenSSL's errors in one line each. Handshakes are tried in tests/integration/test_gateway.py."""

import pytest
from OpenSSL import SSL

from devicesim.emulator.servertls import ServerContexts, describe
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


def test_a_region_s_context_is_made_once() -> None:
    contexts = ServerContexts(shared_ca(), settings=Settings(), now=EPOCH.timestamp())

    assert contexts.context("us-east-1") is contexts.context("us-east-1")
    assert contexts.context("us-east-1") is not contexts.context("eu-west-1")
