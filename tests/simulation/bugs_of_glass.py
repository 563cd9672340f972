"""Planted bugs of break-glass; see ``bugs.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from broker.issuance import break_glass_reviews as desk
from broker.stores import break_glass_ops, break_glass_reviews

Patch = pytest.MonkeyPatch


def reviews_block_nobody(patch: Patch) -> None:
    """A review that is overdue is told, and nothing comes of that."""
    patch.setattr(break_glass_ops, "blocked_groups", lambda uses, groups, now: {})


def glass_over_suspensions(patch: Patch) -> None:
    """Who breaks glass is in a hurry, and needs nobody's word to pass over the kill switch."""
    patch.setattr(break_glass_ops, "passed_suspensions", lambda view, intent, new, subject, lease: ())


def emergencies_without_number(patch: Patch) -> None:
    """How often it was done already is not asked."""
    patch.setattr(break_glass_ops, "_check_rate", lambda intent, new, young: None)


def reviews_of_ones_own(patch: Patch) -> None:
    """Whoever reviews it has reviewed it."""
    for module in (desk, break_glass_reviews):
        patch.setattr(module, "check_reviewer", lambda use, reviewer: None)


def broken_in_silence(patch: Patch) -> None:
    """The row is written, and nobody is told."""
    told = break_glass_ops.tell

    def but_the_use(tx: Any, event: Any, *more: Any) -> None:
        if event != "break_glass.used":
            told(tx, event, *more)

    patch.setattr(break_glass_ops, "tell", but_the_use)


OF_GLASS: dict[str, Callable[[Patch], None]] = {
    each.__name__.replace("_", "-"): each
    for each in (
        reviews_block_nobody,
        glass_over_suspensions,
        emergencies_without_number,
        reviews_of_ones_own,
        broken_in_silence,
    )
}
