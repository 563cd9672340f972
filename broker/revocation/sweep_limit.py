"""How much of what carries our mark may be unknown before that says more of the ledger than of the upstream. Pure.

A few that no ledger knows are left over from something. Most of all that lives unknown at once means that the wrong
ledger is asked, or that a second broker has the same mark; ending it all would end everybody's work.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SweepLimit:
    """A sweep by itself passes neither: it stops where more than ``at_most`` *and* more than ``share`` is unknown."""

    at_most: int = 50
    share: float = 0.5  # of everything that carries our mark

    def stops(self, unknown: int, ours: int, allowed: int = 0) -> bool:
        """Whether ``unknown`` of ``ours`` waits for a person; ``allowed``: as many as one has named."""
        return unknown > max(self.at_most, allowed) and unknown > self.share * ours
