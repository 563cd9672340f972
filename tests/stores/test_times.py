"""Stored milliseconds and datetimes: exact both ways."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.stores.times import from_ms, optional_at, optional_ms, span_ms, to_ms

YEAR_2106 = 2**32 * 1000


@given(st.integers(min_value=0, max_value=YEAR_2106))
def test_there_and_back(ms: int) -> None:
    assert to_ms(from_ms(ms)) == ms
    assert from_ms(ms) == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
    assert from_ms(ms).utcoffset() == timedelta(0)


def test_rounding_is_down() -> None:
    moment = datetime(2026, 1, 1, 0, 0, 0, 1999, tzinfo=UTC)
    assert to_ms(moment) == to_ms(moment.replace(microsecond=1000))
    assert span_ms(timedelta(microseconds=1999)) == 1


def test_zones_do_not_matter() -> None:
    assert to_ms(datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))) == to_ms(
        datetime(2026, 1, 1, tzinfo=UTC)
    )


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(TypeError):
        to_ms(datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None))


def test_none_stays_none() -> None:
    assert (optional_ms(None), optional_at(None)) == (None, None)
