"""Spans of time as people write them: ``90s``, ``5m``, ``1h30m``."""

from __future__ import annotations

import re
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from broker.errors import InvalidInput, Reason

_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_PART = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)", re.ASCII)
_WHOLE = re.compile(rf"(?:{_PART.pattern})+\Z", re.ASCII)

# protobuf's own limit for a Duration (duration.proto): about 10,000 years.
_LONGEST = timedelta(days=3_652_500)


def parse_span(text: str, field: str, reason: Reason = Reason.FIELD_INVALID) -> timedelta:
    """The span written as ``text``: whole numbers with units ms, s, m, h or d, added up; more than nothing.

    A number without a unit is refused rather than guessed. Raises :class:`InvalidInput` with ``reason``.
    """
    if not _WHOLE.match(text):
        raise _refused(text, field, reason, "is not a span of time")
    parts = dict.fromkeys(_UNITS.values(), 0)
    for number, unit in _PART.findall(text):
        parts[_UNITS[unit]] += int(number)
    return _checked(timedelta(**parts), text, field, reason)


def to_duration(span: timedelta | str, field: str, reason: Reason = Reason.FIELD_INVALID) -> Duration:
    """``span`` for the wire. Raises :class:`InvalidInput` with ``reason`` for one that is not positive."""
    value = parse_span(span, field, reason) if isinstance(span, str) else span
    message = Duration()
    message.FromTimedelta(_checked(value, str(span), field, reason))
    return message


def _checked(span: timedelta, text: str, field: str, reason: Reason) -> timedelta:
    if span <= timedelta():
        raise _refused(text, field, reason, "is not more than nothing")
    if span > _LONGEST:
        raise _refused(text, field, reason, "is longer than any lease")
    return span


def _refused(text: str, field: str, reason: Reason, why: str) -> InvalidInput:
    shown = ascii(text)[:100]
    return InvalidInput(
        reason,
        f"{field} {shown} {why}.",
        hint="Write a whole number with a unit: 90s, 5m or 1h30m.",
        metadata={"field": field, "value": shown},
    )
