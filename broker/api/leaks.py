"""A credential in a field where none belongs: the request is refused, and nothing of it is kept or repeated.

Fields that are marked sensitive may hold what they like: they are never logged, and kept encrypted at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import repeat
from operator import attrgetter
from typing import Any, NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from broker.api.redaction import sensitive_fields
from broker.errors import InvalidInput, Reason
from broker.scope.secret_shapes import secret_in


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
    """All texts, in portions, and the path of each."""
    walked = _walked(message.DESCRIPTOR)
    yield [prefix + name for name in walked.texts] if prefix else walked.texts, walked.read(message)
    for name, kind in walked.others:
        if kind == "message" and not message.HasField(name):
            continue
        value = getattr(message, name)
        if kind == "texts":
            yield repeat(prefix + name), value
        elif kind == "map":
            for key in value:
                yield from _entry(key, value[key], prefix + name)
        elif kind == "messages":
            for each in value:
                yield from _texts(each, f"{prefix}{name}.")
        else:
            yield from _texts(value, f"{prefix}{name}.")


def _entry(key: object, value: object, path: str) -> Iterator[tuple[Iterable[str], Sequence[str]]]:
    if isinstance(value, str):
        yield repeat(path), (str(key), value)
        return
    yield (path,), (str(key),)
    if isinstance(value, Message):
        yield from _texts(value, f"{path}.")


class _Walked(NamedTuple):
    """The fields of one message type in which there can be texts that are not marked."""

    texts: tuple[str, ...]  # the plain ones
    read: Callable[[Any], tuple[str, ...]]  # the values of those, all at once
    others: tuple[tuple[str, str], ...]  # and how to go through each


@cache
def _walked(descriptor: Descriptor) -> _Walked:
    marked = sensitive_fields(descriptor)
    kinds = [(field.name, _kind(field)) for field in descriptor.fields if field.name not in marked]
    texts = tuple(name for name, kind in kinds if kind == "text")
    return _Walked(texts, _reader(texts), tuple((name, kind) for name, kind in kinds if kind not in ("", "text")))


def _reader(names: Sequence[str]) -> Callable[[Any], tuple[str, ...]]:
    if len(names) > 1:
        return attrgetter(*names)
    return lambda message: tuple(getattr(message, name) for name in names)  # of one, attrgetter makes no tuple


def _kind(field: FieldDescriptor) -> str:
    if field.message_type is not None:
        if field.message_type.GetOptions().map_entry:
            return "map"
        return "messages" if field.is_repeated else "message"
    if field.type != FieldDescriptor.TYPE_STRING:
        return ""
    return "texts" if field.is_repeated else "text"
