"""A credential in a field where none belongs: the request is refused, and nothing of it is kept or repeated.

Fields that are marked sensitive may hold what they like: they are never logged, and kept encrypted at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from broker.api.redaction import sensitive_fields
from broker.errors import InvalidInput, Reason
from broker.scope.secret_shapes import secret_in


def check_no_secrets(request: Message) -> None:
    """Raises :class:`InvalidInput` (CREDENTIAL_IN_REQUEST), which names the field and the kind, never the text."""
    texts = list(_texts(request, ""))
    # All at once: no shape goes on over the end of a line, and nearly every request holds none.
    if secret_in("\n".join(text for _, text in texts)) is None:
        return
    for path, text in texts:
        kind = secret_in(text)
        if kind is not None:
            raise InvalidInput(
                Reason.CREDENTIAL_IN_REQUEST,
                f"{path} seems to hold {kind}.",
                hint="Nothing of the request was kept. Never tell the broker a credential, and have this one revoked:"
                " whoever carried the request may have seen it.",
                metadata={"field": path},
            )


def _texts(message: Message, prefix: str) -> Iterator[tuple[str, str]]:
    for name, kind in _walked(message.DESCRIPTOR):
        value = getattr(message, name)
        if kind == "text":
            if value:
                yield prefix + name, value
        elif kind == "texts":
            for each in value:
                yield prefix + name, each
        elif kind == "map":
            for key in value:
                yield prefix + name, str(key)
                yield from _value(value[key], f"{prefix}{name}.")
        elif kind == "messages":
            for each in value:
                yield from _texts(each, f"{prefix}{name}.")
        elif message.HasField(name):
            yield from _texts(value, f"{prefix}{name}.")


def _value(value: object, prefix: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Message):
        yield from _texts(value, prefix)
    elif isinstance(value, str):
        yield prefix.removesuffix("."), value


@cache
def _walked(descriptor: Descriptor) -> tuple[tuple[str, str], ...]:
    """The fields of this message type in which there can be texts that are not marked, and how to go through each."""
    marked = sensitive_fields(descriptor)
    found = ((field, _kind(field)) for field in descriptor.fields if field.name not in marked)
    return tuple((field.name, kind) for field, kind in found if kind)


def _kind(field: FieldDescriptor) -> str:
    if field.message_type is not None:
        if field.message_type.GetOptions().map_entry:
            return "map"
        return "messages" if field.is_repeated else "message"
    if field.type != FieldDescriptor.TYPE_STRING:
        return ""
    return "texts" if field.is_repeated else "text"
