"""Every emulated operation by its name in AWS's service model."""

from collections.abc import Mapping

from devicesim.emulator.operations import (
    account,
    cacertificates,
    certificates,
    policies,
    templates,
    thinggroups,
    things,
)
from devicesim.emulator.operations.call import Handler

IOT: Mapping[str, Handler] = {
    **cacertificates.HANDLERS,
    **certificates.HANDLERS,
    **templates.HANDLERS,
    **policies.HANDLERS,
    **things.HANDLERS,
    **thinggroups.HANDLERS,
    **account.IOT_HANDLERS,
}
STS: Mapping[str, Handler] = account.STS_HANDLERS
