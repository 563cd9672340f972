"""How late a note is, by what it says."""

from __future__ import annotations

import math
from collections.abc import Sequence

from broker.audit.believed import read


def later_than(note: str, after_ms: int) -> bool:
    """Whether ``note`` is of later than ``after_ms``; what says nothing of the kind is taken for later."""
    return _at_ms(note) > after_ms


def tells_later(note: str, after_ms: int) -> bool:
    """Whether ``note`` says that it is of later than ``after_ms``; what says nothing of the kind does not."""
    return after_ms < _at_ms(note) < math.inf


def newest_of(found: Sequence[str]) -> str | None:
    """The latest of ``found``, which are in the order of their coming; of several the last.

    What comes last need not be it: a ledger that was put back under its broker has what to send it had sent before.
    """
    return max(reversed(found), key=_at_ms, default=None)


def _at_ms(note: str) -> float:
    said = read(note, ()).checkpoint
    return math.inf if said is None else said.at_ms
