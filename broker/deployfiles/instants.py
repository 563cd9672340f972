"""Moments as operators write them: RFC 3339, in quotes, with an offset."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(?::[0-9]{2})?(?:Z|[+-][0-9]{2}:[0-9]{2})\Z", re.ASCII
)


def parse_instant(value: object) -> datetime:
    """An instant as RFC 3339 writes it, with its offset. Raises :class:`ValueError`."""
    try:
        if isinstance(value, str) and _INSTANT.match(value):
            return datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError):
        pass  # a month 13, or a year that has no UTC: the same answer
    raise ValueError('must be an instant in quotes, like "2026-05-01T12:00:00Z"')


Instant = Annotated[
    datetime,
    BeforeValidator(parse_instant),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-05-01T12:00:00Z"]}),
]
