"""Message enrichment: user properties that a device's messages get from its thing (developer guide, "adding propagating
attributes for message enrichment", D). Pure.

The thing's type says which attributes of the thing and of the connection are added, under which key. An attribute that
the thing does not have is not added (I).
"""

from devicesim.emulator.state.partition import Partition
from devicesim.emulator.state.policies import thing_of_connection
from devicesim.emulator.state.records import PropagatingAttribute, Thing


def user_properties(partition: Partition, certificate_id: str, client_id: str) -> tuple[tuple[str, str], ...]:
    """What is added to a message of a connection with this certificate and client id; nothing, as a rule."""
    name = thing_of_connection(partition, partition.certificate_arn(certificate_id), client_id)
    thing = None if name is None else partition.things.get(name)
    if thing is None or thing.thing_type_name is None:
        return ()
    thing_type = partition.thing_types[thing.thing_type_name]
    values = ((each.user_property_key, _value(each, thing, client_id)) for each in thing_type.propagating_attributes)
    return tuple((key, value) for key, value in values if value is not None)


def _value(attribute: PropagatingAttribute, thing: Thing, client_id: str) -> str | None:
    if attribute.thing_attribute is not None:
        return thing.attributes.get(attribute.thing_attribute)
    return client_id if attribute.connection_attribute == "iot:ClientId" else thing.name
