"""The emulator in a process of its own, so that its memory and descriptors can be told from the test's.

    python -m tests.hostile_server '{"handshake_timeout": 1.0}'

Prints the ready line. Quotas are lifted: it must stand what comes without them.
"""

import json
import resource
import sys

import trio

from devicesim.emulator import httpd, service
from devicesim.emulator.quotas import Quotas
from devicesim.emulator.settings import Settings

ACCOUNT = "111111111111"
REGION = "us-east-1"


async def _run(config: service.EmulatorConfig) -> None:
    async with trio.open_nursery() as nursery:
        ready = await nursery.start(lambda *, task_status: service.serve(config, task_status=task_status))
        print(json.dumps(ready.to_json()), flush=True)


def main() -> None:
    httpd.KEEP_ALIVE = 3.0  # connections that clients have closed are kept as long, and the tests wait for their end
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    config = service.EmulatorConfig(
        accounts=(service.AccountConfig(name="a", account_id=ACCOUNT, region=REGION),),
        settings=Settings(quotas=Quotas.lifted(), **json.loads(sys.argv[1])),
    )
    trio.run(_run, config)


if __name__ == "__main__":
    main()
