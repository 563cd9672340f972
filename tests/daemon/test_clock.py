"""Ids: unguessable, fit for every upstream's names, and in order of time."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from broker.clock import SystemClock, SystemRng
from broker.errors import Reason, Unauthenticated
from broker.ports.clock import by_either, earliest
from tests.clock import Clocks


def test_ids_fit_where_they_travel() -> None:
    made = {SystemRng().id() for _ in range(1000)}
    assert len(made) == 1000
    # An STS session name has 64 characters, a PostgreSQL login 63 with OpenBao's "token-" and nine after it.
    assert all(re.fullmatch(r"[0-9a-v]{34}", each) and len(f"token-jb-{each}-12345678") <= 63 for each in made)


def test_ids_of_later_milliseconds_sort_later() -> None:
    first = SystemRng().id()
    began = SystemClock().now()
    while SystemClock().now() == began:
        time.sleep(0.0002)
    assert first < SystemRng().id()


def test_the_random_half_is_random() -> None:
    # 128 bits over 1,000 ids: each of the last 25 characters takes nearly all of its 32 values.
    tails = [SystemRng().id()[-25:] for _ in range(1000)]
    assert all(len({tail[place] for tail in tails}) > 25 for place in range(24))


def _valid(begins: datetime, ends: datetime) -> Callable[[datetime], str]:
    def judge(now: datetime) -> str:
        if not begins <= now <= ends:
            raise Unauthenticated(Reason.SVID_EXPIRED, f"not at {now}")
        return "valid"

    return judge


def test_in_doubt_a_paper_is_good_by_either_clock() -> None:
    """One of now where broker time is ahead of it, and one of broker time. Without doubt there is no other time."""
    clocks, hour, minute = Clocks(), timedelta(hours=1), timedelta(minutes=1)
    kept, real = clocks.kept(), SystemClock().now()
    now, over = _valid(real - minute, real + hour), _valid(real - hour, real - minute)
    later = _valid(real + 2 * hour, real + 4 * hour)
    assert by_either(kept, now) == "valid"
    for judge in (later, over):
        with pytest.raises(Unauthenticated):
            by_either(kept, judge)
    clocks.set_by = timedelta(seconds=20)
    kept.look()
    clocks.set_by = timedelta(0)
    assert kept.wall_in_doubt() is None  # a step of its own
    clocks.set_by = 3 * hour
    kept.look()
    assert kept.wall_in_doubt() is None  # it is ahead itself: there is no other time
    assert by_either(kept, later) == "valid"
    with pytest.raises(Unauthenticated):
        by_either(kept, now)
    clocks.set_by = timedelta(0)
    assert by_either(kept, now) == by_either(kept, later) == "valid"
    with pytest.raises(Unauthenticated, match=str((real + 3 * hour).year)):
        by_either(kept, over)
    assert real - minute < earliest(kept) < real + hour < kept.now()
    # Believed again, only the present counts.
    clocks.slept = 40 * hour
    kept.look()
    clocks.slept += hour
    kept.look()
    assert kept.keeper.doubt is None
    assert kept.wall_in_doubt() is None
    with pytest.raises(Unauthenticated):
        by_either(kept, later)
