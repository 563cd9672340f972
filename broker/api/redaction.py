"""What of a message may be shown: everything but the fields that are marked sensitive in the protos.

Redaction is made from the marks (``protos/broker/api/v1/options.proto``), so that a new secret field is
redacted by the same line that declares it. Maps and repeated fields of marked or unmarked messages are
walked alike; unknown fields are not shown at all.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from broker.api.v1 import options_pb2

MASK = "(redacted)"


def redacted(message: Message) -> dict[str, Any]:
    """The set fields of ``message`` by name, as plain data, sensitive ones masked."""
    shown: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.name in sensitive_fields(message.DESCRIPTOR):
            shown[field.name] = MASK
        elif _is_map(field):
            shown[field.name] = {str(key): _shown(value[key]) for key in value}
        elif field.is_repeated:
            shown[field.name] = [_shown(each) for each in value]
        else:
            shown[field.name] = _shown(value)
    return shown


@cache
def sensitive_fields(descriptor: Descriptor) -> frozenset[str]:
    """The names of the fields of this message type that are marked."""
    marked = (field for field in descriptor.fields if field.GetOptions().Extensions[options_pb2.sensitive])  # type: ignore[index]
    return frozenset(field.name for field in marked)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _shown(value: Any) -> Any:
    # Timestamps and durations are shown as their seconds and nanos: what was sent may be neither.
    return redacted(value) if isinstance(value, Message) else value
