"""An IoT Core for tests: a pytest plugin, loaded by its entry point (``pytest11``) wherever devicesim is installed.

    def test_my_robot(iot_emulator):
        dev, prod = iot_emulator.accounts
        dev.client("iot").register_ca_certificate(...)
        my_robot.connect(prod.mqtt_host, prod.mqtt_port, server_name=prod.endpoint, trust=prod.ca_file)
        assert iot_emulator.history(verdict="registered")
        assert iot_emulator.explain(certificate_id)["stopped_at"] == "status"

    @pytest.mark.iot_emulator(accounts=3, region="eu-west-1", settings=Settings(jitp_delay=(0.0, 0.0)))
    def test_with_others(iot_emulator): ...

``iot_emulator`` is a :class:`devicesim.emulator.embedded.Emulator`, new for each test and gone after it; the emulator
runs in a thread of the test's process, on free ports of loopback. What may be given in the marker is what
:func:`devicesim.emulator.embedded.open_emulator` takes; without settings, JITP takes no time and no quota is kept,
because a test that waits for AWS's pace must say so.

``shared_iot_emulator`` is one for the whole session, for suites that keep to names of their own; the option
``--iot-emulator-accounts`` says with how many accounts. Tests that are trio's own use ``open_emulator`` directly.

Nothing of the emulator is imported before the first fixture is asked for.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from devicesim.emulator.embedded import Emulator

_DEFAULT_ACCOUNTS = 2
_OPTIONS = ("accounts", "region", "settings", "seed", "state")
"""Of :func:`devicesim.emulator.embedded.open_emulator`."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("devicesim").addoption(
        "--iot-emulator-accounts",
        type=int,
        default=_DEFAULT_ACCOUNTS,
        metavar="N",
        help="accounts of the emulated IoT Core where a test does not say (default: %(default)s)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "iot_emulator(accounts=2, region=..., settings=..., seed=...): how the test's iot_emulator is made"
    )


@pytest.fixture
def iot_emulator(request: pytest.FixtureRequest) -> "Iterator[Emulator]":
    """An emulated IoT Core of several accounts, made for this test."""
    marker = request.node.get_closest_marker("iot_emulator")
    if marker is not None and marker.args:
        raise pytest.UsageError("the marker iot_emulator takes keywords only: iot_emulator(accounts=3)")
    options = dict(marker.kwargs) if marker is not None else {}
    for name in options:
        if name not in _OPTIONS:
            raise pytest.UsageError(f"the marker iot_emulator has no {name!r}, only {', '.join(_OPTIONS)}")
    yield from _emulator(request.config, options)


@pytest.fixture(scope="session")
def shared_iot_emulator(request: pytest.FixtureRequest) -> "Iterator[Emulator]":
    """An emulated IoT Core of several accounts, the same for every test that asks for it."""
    yield from _emulator(request.config, {})


def _emulator(config: pytest.Config, options: dict[str, Any]) -> "Iterator[Emulator]":
    from devicesim.emulator.embedded import emulator_in_a_thread, quick

    options.setdefault("accounts", config.getoption("--iot-emulator-accounts"))
    options.setdefault("settings", quick())
    with emulator_in_a_thread(**options) as emulator:
        yield emulator
