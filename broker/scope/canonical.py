"""Canonical bytes: one spelling per value, so that digests and MACs mean the value.

The subset of RFC 8785 (JCS) that needs no number formatting: texts, integers, booleans, null, lists
and objects with text keys (ordered by code point). Floats are refused, because two spellings of one
float are two digests.

There is one form and two encoders: orjson where it is installed (the daemon), the standard library
elsewhere. ``tests/audit/test_canonical.py`` proves that they write the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

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


def canonical_row(values: Sequence[str | int | None]) -> bytes:
    """The canonical bytes of a flat list, without looking at its items: the caller knows their types."""
    if orjson is None:
        return portable_json(values)
    try:
        return orjson.dumps(values)
    except TypeError:
        return portable_json(values)


def portable_json(value: JsonValue) -> bytes:
    """The same bytes from the standard library alone, for a value that has a canonical form."""
    return _ENCODER.encode(value).encode()


_LEAVES = frozenset({str, int, bool, type(None)})


def _check(value: object) -> None:
    """Raise TypeError for whatever has no canonical form; either encoder would write some of it."""
    if value is None or isinstance(value, str | int):
        return
    if isinstance(value, list | tuple):
        for item in value:
            if item.__class__ not in _LEAVES:  # spares the common leaves a call each
                _check(item)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError("keys of a canonical object are texts")
            if item.__class__ not in _LEAVES:
                _check(item)
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
