"""How late a note is, by what it says."""

from __future__ import annotations

from broker.audit.believed import read


def later_than(note: str, after_ms: int) -> bool:
    """Whether ``note`` is of later than ``after_ms``; what says nothing of the kind is taken for later."""
    said = read(note, ()).checkpoint
    return said is None or said.at_ms > after_ms
