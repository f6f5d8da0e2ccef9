"""What is decided about Dask without it: addresses, whether it is there, and waiting for asyncio in trio."""

import asyncio
import subprocess
import sys

import dask.config
import distributed.config  # noqa: F401  # its defaults, which settings of ours must not come before
import pytest
import trio

from devicesim.errors import ClusterError, InputError
from devicesim.fleet import cluster
from devicesim.fleet.cluster import check_address, is_elsewhere, is_exposed, remote_cluster, require_distributed

TIMEOUT = 60.0


@pytest.mark.parametrize(
    ("address", "exposed"),
    [
        ("tcp://127.0.0.1:8786", False),
        ("tcp://localhost:8786", False),
        ("tcp://[::1]:8786", False),
        ("tls://10.0.0.5:8786", False),
        ("tcp://10.0.0.5:8786", True),
        ("tcp://[2001:db8::1]:8786", True),
        ("tcp://dask-scheduler.default.svc:8786", True),
    ],
)
def test_keys_go_unencrypted_to_another_machine_by_tcp_alone(address: str, exposed: bool) -> None:
    check_address(address)

    assert is_exposed(address) is exposed


@pytest.mark.parametrize(
    ("worker", "elsewhere"),
    [("tls://127.0.0.1:40000", False), ("tcp://localhost:1", False), ("tcp://10.0.0.5:40000", True)],
)
def test_a_worker_on_this_machine_s_loopback_is_here(worker: str, elsewhere: bool) -> None:
    assert is_elsewhere(worker) is elsewhere


@pytest.mark.parametrize(
    "address",
    [
        "",
        "10.0.0.5:8786",
        "tcp://10.0.0.5",
        "http://10.0.0.5:8787",
        "tcp://:8786",
        "tcp://a b:1",
        "tcp://a:1/x",
        "tcp://a:0",
        "tcp://a:65536",
    ],
)
def test_what_is_no_address_of_a_scheduler_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="is no address; tcp://HOST:PORT or tls://HOST:PORT is expected"):
        check_address(address)


def test_without_the_extra_it_is_said_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda _: None)

    with pytest.raises(InputError, match="more than one process needs Dask distributed, which is not") as caught:
        require_distributed()
    assert caught.value.hint == "pip install 'devicesim[distributed]', or --workers 1"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("min-version", 7, "Dask's TLS settings cannot be used: distributed.comm.tls.min-version=7 is not supported"),
        ("ca-file", 5, "Dask's TLS settings cannot be used: "),
        ("ca-file", "/nobody/ca.pem", "Dask's TLS files cannot be read: "),
        ("ca-file", None, "needs a certificate, and Dask's settings name none"),
    ],
)
async def test_settings_of_dask_s_that_cannot_be_used_are_told(name: str, value: object, message: str) -> None:
    prefix = "distributed.comm.tls"
    named = {f"{prefix}.ca-file": "/nobody/ca.pem", f"{prefix}.client.cert": "/nobody/dask.pem"}
    with dask.config.set({**named, f"{prefix}.{name}": value}), pytest.raises(ClusterError) as caught:
        async with remote_cluster("tls://127.0.0.1:1"):
            pass

    assert str(caught.value).startswith("scheduler 'tls://127.0.0.1:1'")
    assert message in str(caught.value)
    assert caught.value.hint is not None


def test_a_run_in_one_process_does_not_so_much_as_load_dask() -> None:
    program = "import sys, devicesim.cli.run; sys.exit('distributed' in sys.modules or 'dask' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], timeout=TIMEOUT, check=False).returncode == 0


async def test_a_result_and_an_error_come_out_of_the_other_loop() -> None:
    async def work(value: int) -> int:
        await asyncio.sleep(0)
        if value < 0:
            raise KeyError(value)
        return value

    with cluster._loop_in_a_thread() as loop:
        assert await cluster._on(loop, work(7)) == 7
        with pytest.raises(KeyError, match="-1"):
            await cluster._on(loop, work(-1))


async def test_what_is_cancelled_here_is_cancelled_there() -> None:
    begun, cancelled = trio.Event(), trio.Event()
    token = trio.lowlevel.current_trio_token()

    async def work() -> None:
        token.run_sync_soon(begun.set)
        try:
            await asyncio.sleep(3600)
        finally:
            token.run_sync_soon(cancelled.set)

    with cluster._loop_in_a_thread() as loop, trio.fail_after(TIMEOUT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cluster._on, loop, work())
            await begun.wait()
            nursery.cancel_scope.cancel()
        await cancelled.wait()
