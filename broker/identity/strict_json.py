"""JSON objects written by somebody else, read so that two readers cannot differ about them.

Belongs here: one object, in UTF-8, each member once (RFC 8259, section 4, leaves duplicates to the
reader, and readers differ), and no numbers that JSON does not have. Does not belong here: what the
members mean (``jwt_token.py``, ``jwt_bundle.py``).
"""

from __future__ import annotations

import json
from typing import Any, NoReturn


class NotStrictJson(ValueError):
    """The bytes are not one JSON object in the one reading. Callers turn it into their own refusal."""


def parse_object(data: bytes) -> dict[str, Any]:
    """The object in ``data``. Raises :class:`NotStrictJson`, for any bytes whatever; it never quotes them."""
    try:
        text = data.decode("utf-8")
        parsed = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except NotStrictJson:
        raise
    except UnicodeDecodeError:
        raise NotStrictJson("is not UTF-8") from None
    except (ValueError, RecursionError):
        raise NotStrictJson("is not JSON") from None
    if not isinstance(parsed, dict):
        raise NotStrictJson("is not a JSON object")
    return parsed


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise NotStrictJson("has a member twice")
    return members


def _no_constant(_name: str) -> NoReturn:
    raise NotStrictJson("has a number that JSON does not have (NaN or Infinity)")
