"""How long to wait before a revocation is tried again.

Full jitter around a doubling delay, capped, for ever: a revocation is never given up. Randomness is
an argument (a number in [0, 1)), so that the arithmetic can be tested.
"""

from __future__ import annotations

from datetime import timedelta

BASE = timedelta(seconds=1)
CAP = timedelta(seconds=60)
LONGEST_RETRY_AFTER = timedelta(minutes=5)
# From this many failures on, a REVOKING attempt is shown as stuck and alarmed; it is still retried.
STUCK_AFTER = 3


def delay(failures: int, jitter: float, retry_after: timedelta | None = None) -> timedelta:
    """The wait after the ``failures``-th failure in a row (1, 2, ...).

    ``jitter`` in [0, 1) spreads the wait over [half, one and a half) of the doubling delay. An
    upstream's own ``retry_after`` is a floor, even above the cap (faults.md F11), but not for longer than
    :data:`LONGEST_RETRY_AFTER`: an upstream must not be able to keep a credential alive by a word.
    """
    exponent = min(max(failures, 1) - 1, 16)
    wait = min(BASE * (1 << exponent), CAP) * (0.5 + jitter)
    wait = min(wait, CAP)
    return wait if retry_after is None else max(wait, min(retry_after, LONGEST_RETRY_AFTER))
