"""A credential in a field where none belongs: the request is refused, and nothing of it is kept or repeated.

Fields that are marked sensitive may hold what they like: they are never logged, and kept encrypted at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import groupby, repeat
from operator import attrgetter
from typing import Any, NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from broker.api.redaction import sensitive_fields
from broker.errors import InvalidInput, Reason
from broker.scope.secret_shapes import secret_in

# Half of the messages in requests are these.
_WITHOUT_TEXTS = frozenset({"google.protobuf.Duration", "google.protobuf.Timestamp"})


def check_no_secrets(request: Message) -> None:
    """Raises :class:`InvalidInput` (CREDENTIAL_IN_REQUEST), which names the field and the kind, never the text."""
    # All at once: no shape goes on over the end of a line, and nearly every request holds none.
    if secret_in("\n".join([text for _, texts in _texts(request, "") for text in texts])) is None:
        return
    for paths, texts in _texts(request, ""):
        for path, text in zip(paths, texts, strict=False):  # a path may be repeated without end
            kind = secret_in(text)
            if kind is not None:
                raise InvalidInput(
                    Reason.CREDENTIAL_IN_REQUEST,
                    f"{path} seems to hold {kind}.",
                    hint="Nothing of the request was kept. Never tell the broker a credential, and have this one"
                    " revoked: whoever carried the request may have seen it.",
                    metadata={"field": path},
                )


def _texts(message: Message, prefix: str) -> Iterator[tuple[Iterable[str], Sequence[str]]]:
    """All texts, in portions, and the path of each; in the order of the fields."""
    for kind, name, names, read in _walked(message.DESCRIPTOR):
        if kind == "text":
            yield [prefix + each for each in names] if prefix else names, read(message)
            continue
        if kind == "message" and not message.HasField(name):
            continue
        value = getattr(message, name)
        if kind == "texts":
            yield repeat(prefix + name), value
        elif kind == "map":
            yield repeat(prefix + name), [part for key in value for part in (str(key), value[key])]
        elif kind == "map of others":
            for key in value:
                yield (prefix + name,), (str(key),)
                yield from _inner(value[key], f"{prefix}{name}.")
        elif kind == "messages":
            for each in value:
                yield from _texts(each, f"{prefix}{name}.")
        else:
            yield from _texts(value, f"{prefix}{name}.")


def _inner(value: object, prefix: str) -> Iterator[tuple[Iterable[str], Sequence[str]]]:
    if isinstance(value, Message):
        yield from _texts(value, prefix)


class _Walked(NamedTuple):
    """What there is of one message type in which there can be texts that are not marked."""

    kind: str
    name: str  # of the field; of plain texts the first one's
    names: tuple[str, ...]  # of plain texts that follow each other
    read: Callable[[Any], tuple[str, ...]]  # their values, all at once


@cache
def _walked(descriptor: Descriptor) -> tuple[_Walked, ...]:
    marked = sensitive_fields(descriptor)
    kinds = [(_kind(field), field.name) for field in descriptor.fields if field.name not in marked]
    found: list[_Walked] = []
    for kind, portion in groupby(((kind, name) for kind, name in kinds if kind), lambda each: each[0]):
        names = tuple(name for _, name in portion)
        each_by_itself = [names] if kind == "text" else [(name,) for name in names]
        found.extend(_Walked(kind, several[0], several, _reader(several)) for several in each_by_itself)
    return tuple(found)


def _reader(names: Sequence[str]) -> Callable[[Any], tuple[str, ...]]:
    if len(names) > 1:
        return attrgetter(*names)
    return lambda message: tuple(getattr(message, name) for name in names)  # of one, attrgetter makes no tuple


def _kind(field: FieldDescriptor) -> str:
    of = field.message_type
    if of is None:
        if field.type != FieldDescriptor.TYPE_STRING:
            return ""
        return "texts" if field.is_repeated else "text"
    if of.GetOptions().map_entry:
        return "map" if of.fields_by_name["value"].type == FieldDescriptor.TYPE_STRING else "map of others"
    if of.full_name in _WITHOUT_TEXTS:
        return ""
    return "messages" if field.is_repeated else "message"
