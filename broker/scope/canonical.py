"""Canonical bytes: one spelling per value, so that digests and MACs mean the value.

The subset of RFC 8785 (JCS) that needs no number formatting: texts, integers, booleans, null, lists
and objects with text keys (ordered by code point). Floats are refused, because two spellings of one
float are two digests.

There is one form and two encoders: orjson where it is installed (the daemon), the standard library
elsewhere. ``tests/audit/test_canonical.py`` proves that they write the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

try:
    import orjson
except ModuleNotFoundError:  # the base install
    orjson = None  # type: ignore[assignment]

JsonValue = None | bool | int | str | Sequence["JsonValue"] | Mapping[str, "JsonValue"]


def canonical_json(value: JsonValue) -> bytes:
    """The canonical bytes of ``value``.

    Raises :class:`TypeError` for floats and foreign types, :class:`ValueError` for text that is not
    Unicode (a lone surrogate).
    """
    _check(value)
    if orjson is None:
        return portable_json(value)
    try:
        return orjson.dumps(value, _as_dict, orjson.OPT_SORT_KEYS)
    except TypeError:
        # Integers over 64 bits and keys of a subclass of str are the other encoder's; what neither
        # can write, the other explains better.
        return portable_json(value)


def canonical_record(record: Mapping[str, JsonValue]) -> bytes:
    """The canonical bytes of an object whose types the caller knows, but for its ``data``, which is checked."""
    data = record["data"]
    if data.__class__ is dict:
        _check_object(data)
    else:
        _check(data)
    if orjson is None:
        return portable_json(record)
    try:
        return orjson.dumps(record, _as_dict, orjson.OPT_SORT_KEYS)
    except TypeError:
        return portable_json(record)


def canonical_row(values: Sequence[str | int | None]) -> bytes:
    """The canonical bytes of a flat list, without looking at its items: the caller knows their types."""
    if orjson is None:
        return portable_json(values)
    try:
        return orjson.dumps(values)
    except TypeError:
        return portable_json(values)


def respelt(body: bytes) -> tuple[object, bytes]:
    """What JSON text says, and the same spelt canonically: equal to ``body`` if that was canonical.

    For millions of records, so it looks for no floats: they come out as they went in. Raises ValueError for no JSON.
    """
    if orjson is None:
        value = json.loads(body)
        return value, portable_json(value)
    value = orjson.loads(body)
    return value, orjson.dumps(value, None, orjson.OPT_SORT_KEYS)


def portable_json(value: JsonValue) -> bytes:
    """The same bytes from the standard library alone, for a value that has a canonical form."""
    return _ENCODER.encode(value).encode()


_LEAVES = frozenset({str, int, bool, type(None)})


def _check(value: object) -> None:
    """Raise TypeError for whatever has no canonical form; either encoder would write some of it.

    Every digest, MAC and audit record passes here, so the plain types are told by their class alone.
    """
    kind = value.__class__
    if kind is dict:
        _check_object(value)  # type: ignore[arg-type]
    elif kind is list or kind is tuple:
        _check_items(value)  # type: ignore[arg-type]
    elif kind not in _LEAVES:
        _check_subclass(value)


def _check_object(value: Mapping[object, object]) -> None:
    for key, item in value.items():
        if key.__class__ is not str and not isinstance(key, str):
            raise TypeError("keys of a canonical object are texts")
        if item.__class__ not in _LEAVES:
            _check(item)


def _check_items(value: Iterable[object]) -> None:
    for item in value:
        if item.__class__ not in _LEAVES:
            _check(item)


def _check_subclass(value: object) -> None:
    if isinstance(value, (str, int)):
        return
    if isinstance(value, Mapping):
        _check_object(value)
    elif isinstance(value, (list, tuple)):
        _check_items(value)
    elif isinstance(value, float):
        raise TypeError("a float has no canonical form; use an integer of a smaller unit")
    else:
        raise TypeError(f"{type(value).__name__} has no canonical form")


def _as_dict(value: object) -> object:
    """Mappings that are no dicts; nothing else gets past the check."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no canonical form")


_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_as_dict
)
