"""Ids: unguessable, fit for every upstream's names, and in order of time."""

from __future__ import annotations

import re
import time

from broker.clock import SystemClock, SystemRng


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
