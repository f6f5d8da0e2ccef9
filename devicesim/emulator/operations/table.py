"""Every emulated operation by its name in AWS's service model."""

from collections.abc import Mapping

from devicesim.emulator.operations import (
    account,
    authorization,
    billinggroups,
    cacertificates,
    certificates,
    claims,
    domains,
    logging_options,
    policies,
    registerthing,
    rolealiases,
    sts,
    templates,
    thinggroups,
    things,
    topicrules,
    transfers,
)
from devicesim.emulator.operations.call import Handler

IOT: Mapping[str, Handler] = {
    **cacertificates.HANDLERS,
    **certificates.HANDLERS,
    **templates.HANDLERS,
    **transfers.HANDLERS,
    **claims.HANDLERS,
    **domains.HANDLERS,
    **rolealiases.HANDLERS,
    **logging_options.HANDLERS,
    **policies.HANDLERS,
    **things.HANDLERS,
    **thinggroups.HANDLERS,
    **billinggroups.HANDLERS,
    **authorization.HANDLERS,
    **registerthing.HANDLERS,
    **topicrules.HANDLERS,
    **account.HANDLERS,
}
STS: Mapping[str, Handler] = sts.HANDLERS
