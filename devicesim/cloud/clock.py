"""An account's data endpoint, and how this machine's clock stands to its control plane's: one call tells both."""

from collections.abc import Callable
from email.utils import parsedate_to_datetime

from devicesim.cloud.account import AccountClient


async def endpoint_and_clock(client: AccountClient, clock: Callable[[], float]) -> tuple[str, float | None]:
    """The Data-ATS endpoint (the host name that is the account's SNI), and the seconds by which this machine is ahead.

    ``clock`` tells the seconds since the Unix epoch. The offset is ``None`` when the control plane does not tell its
    time. The ``Date`` header has whole seconds, so less than one says nothing.
    """
    before = clock()
    answer = await client.call("describe_endpoint", endpointType="iot:Data-ATS")
    after = clock()
    sent = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    # it was written somewhere between asking and the answer, and cut to its second
    off = None if sent is None else (before + after) / 2 - (parsedate_to_datetime(sent).timestamp() + 0.5)
    return str(answer["endpointAddress"]), off
