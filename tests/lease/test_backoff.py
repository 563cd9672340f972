"""How long a revocation rests before it is tried again."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.lease.backoff import BASE, CAP, delay


@pytest.mark.parametrize(
    ("failures", "jitter", "retry_after", "seconds"),
    [
        (1, 0.5, None, 1),  # 1 * 2**0 * (0.5 + 0.5)
        (1, 0.0, None, 0.5),  # 1 * 2**0 * 0.5
        (2, 0.5, None, 2),  # 1 * 2**1
        (4, 0.25, None, 6),  # 1 * 2**3 * 0.75
        (6, 0.5, None, 32),  # 1 * 2**5
        (7, 0.5, None, 60),  # 64, capped
        (7, 0.0, None, 30),  # capped at 60 first, then halved by the jitter
        (1000, 0.999, None, 60),  # capped, and no overflow
        (0, 0.5, None, 1),  # counts as the first
        (1, 0.5, 10, 10),  # the upstream's own wait is a floor
        (1, 0.5, 300, 300),  # also above the cap
        (7, 0.5, 10, 60),  # but no ceiling
        (1, 0.5, 86_400, 300),  # and no word of an upstream keeps a credential alive for a day
    ],
)
def test_table(failures: int, jitter: float, retry_after: float | None, seconds: float) -> None:
    floor = None if retry_after is None else timedelta(seconds=retry_after)
    assert delay(failures, jitter, floor) == timedelta(seconds=seconds)


@given(st.integers(min_value=1), st.floats(min_value=0, max_value=1, exclude_max=True))
def test_it_never_gives_up_and_never_storms(failures: int, jitter: float) -> None:
    assert BASE / 2 <= delay(failures, jitter) <= CAP
