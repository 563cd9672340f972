"""Stored time: whole milliseconds since the epoch, UTC, in integers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def to_ms(at: datetime) -> int:
    """Milliseconds since the epoch, rounded down. Raises TypeError for a naive datetime."""
    return (at - _EPOCH) // _MILLISECOND


def from_ms(ms: int) -> datetime:
    """The aware UTC datetime of a stored time.

    By way of a float, which is half as dear as a sum of timedeltas and exact until the year 2106: up to 2**32
    seconds a double's step is below half a microsecond, and ``fromtimestamp`` rounds to the microsecond.
    """
    return datetime.fromtimestamp(ms / 1000, UTC)


def optional_ms(at: datetime | None) -> int | None:
    """Like :func:`to_ms`; None stays None."""
    return None if at is None else (at - _EPOCH) // _MILLISECOND


def optional_at(ms: int | None) -> datetime | None:
    """Like :func:`from_ms`; None stays None."""
    return None if ms is None else from_ms(ms)


def span_ms(span: timedelta) -> int:
    """A duration in whole milliseconds, rounded down."""
    return span // _MILLISECOND
