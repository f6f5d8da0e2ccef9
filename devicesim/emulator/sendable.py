"""Whether a message that came by another way than MQTT can be said in MQTT at all. Pure.

What a device publishes has been read from a packet. What the API or a rule publishes has not, and may have a topic or a
property that no packet can carry: U+0000, half a character, 70,000 bytes. Such a message must be refused before it is
retained or delivered to the first of many.
"""

import struct
from dataclasses import replace

from devicesim.emulator.decode import Decoder
from devicesim.emulator.encode import encode
from devicesim.emulator.packets import PacketError, ProtocolVersion, Publish
from devicesim.emulator.session import Message

_ANY_SIZE = 1 << 28


def message_problem(message: Message) -> str | None:
    """Why no PUBLISH can carry ``message``; ``None`` when one can. Its length is not judged."""
    properties = replace(message.properties, message_expiry_interval=1)
    packet = Publish(topic=message.topic, payload=b"", properties=properties)
    decoder = Decoder(max_packet_size=_ANY_SIZE, version=ProtocolVersion.V5)
    try:
        decoder.feed(encode(packet, ProtocolVersion.V5))
        decoder.next_packet()
    except PacketError as error:
        return str(error)
    except UnicodeEncodeError as error:
        return f"{error.object!r} is not text"
    except struct.error:
        return "a string or binary value is longer than 65535 bytes"
    return None
