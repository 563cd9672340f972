from __future__ import annotations

from datetime import timedelta

import pytest

from broker.client.spans import parse_span, to_duration
from broker.errors import InvalidInput, Reason


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("5m", 300), ("1h30m", 5400), ("1d", 86400), ("1500ms", 1.5), ("2m2m", 240), ("007s", 7)],
)
def test_spans_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_span(text, "ttl") == timedelta(seconds=seconds)
    assert to_duration(text, "ttl").ToTimedelta() == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "5", "-5m", "0s", "0h0m", "nan", "NaNs", "1.5h", "5M", "m", "5m ", "٥m", "1w"])
def test_everything_else_is_refused_and_says_which_field(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_span(text, "ttl", Reason.TTL_INVALID)
    assert refused.value.reason is Reason.TTL_INVALID
    assert refused.value.metadata["field"] == "ttl"
    assert "90s, 5m or 1h30m" in refused.value.hint


@pytest.mark.parametrize("days", [3_652_501, 999_999_999])
def test_a_span_the_wire_cannot_carry_is_refused(days: int) -> None:
    """A protobuf Duration ends at 315,576,000,000 s = 3,652,500 days."""
    to_duration(timedelta(days=3_652_500), "ttl")
    with pytest.raises(InvalidInput):
        to_duration(timedelta(days=days), "ttl")
