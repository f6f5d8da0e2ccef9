"""Resources that a call may name by name or by ARN."""

from devicesim.emulator.apierrors import invalid_request, resource_not_found
from devicesim.emulator.operations.call import Call


def name_of(call: Call, member: str, kind: str) -> str:
    """The name of a resource given as ``<member>Name``, as ``<member>Arn``, or as both when they agree.

    ``kind`` is the word of its ARNs (``thinggroup``).
    """
    name, arn = call.get(f"{member}Name"), call.get(f"{member}Arn")
    if arn is not None:
        prefix = call.partition.arn(kind, "")
        if not arn.startswith(prefix):
            raise resource_not_found(f"The resource {arn} does not exist")
        if name not in (None, arn.removeprefix(prefix)):
            raise invalid_request(f"The {member}Name {name} and the {member}Arn {arn} are not of the same resource")
        return str(arn.removeprefix(prefix))
    if name is None:
        raise invalid_request(f"Specify either {member}Name or {member}Arn")
    return str(name)
