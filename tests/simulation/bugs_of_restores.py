"""Planted bugs that only show where the ledger is put back to an older state; see ``bugs.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from broker.daemon.witnessing import Witnessing
from broker.issuance.recovering import Recovering
from broker.ports.orphans import OrphanWhy
from broker.revocation import reconciler
from broker.revocation.comparison import Comparison
from broker.stores import grant_ops, ledger_trail, recovery_ops
from broker.stores.times import to_ms

Patch = pytest.MonkeyPatch


def witnesses_not_asked(patch: Patch) -> None:
    """A start does not hold its ledger against what the witnesses have."""

    async def nobody(self: Any) -> None:
        self._gate.unread = ()

    patch.setattr(Witnessing, "ask_unread", nobody)


def one_word_opens_the_gate(patch: Patch) -> None:
    """The first person's word is enough."""

    def at_once(tx: Any, lifting: Any) -> Any:
        row = recovery_ops.find(tx, lifting.tenant)
        if row is None or row.id != lifting.id or row.released_at is not None:
            return release(tx, lifting)
        row.first_by = row.first_name = row.first_reason = row.first_request_id = "somebody"
        row.first_at = to_ms(lifting.now)
        return recovery_ops._released(tx, row, lifting, to_ms(lifting.now))

    release = recovery_ops.release
    patch.setattr(recovery_ops, "release", at_once)


def recovery_is_told_and_goes_on(patch: Patch) -> None:
    """It stands in the trail that the ledger is an old one, and grants go on."""
    closed = Recovering._closed

    async def and_open(self: Any, recovery: Any) -> None:
        await closed(self, recovery)
        self._gate.recovery = ""

    patch.setattr(Recovering, "_closed", and_open)
    patch.setattr(grant_ops, "refuse_while_open", lambda view, tenant: None)


def recovery_is_heard_with_the_beat_alone(patch: Patch) -> None:
    """An intent does not look whether another replica has entered one."""
    patch.setattr(grant_ops, "refuse_while_open", lambda view, tenant: None)


def recovery_burns_nothing(patch: Patch) -> None:
    """What the old ledger held open stays open."""

    async def none(self: Any, tenant: str, now: Any) -> int:
        return 0

    patch.setattr(ledger_trail.LedgerTrail, "burn_open", none)


def words_of_another_find(patch: Patch) -> None:
    """Who has spoken of an earlier find has spoken of the later one."""
    patch.setattr(recovery_ops, "_forget_words", lambda row: None)


def what_is_unknown_is_nobodys(patch: Patch) -> None:
    """What an upstream lists, and the ledger has never heard of, is left alone."""
    compare = reconciler.compare

    def known_alone(*arguments: Any) -> Comparison:
        found = compare(*arguments)
        strays = tuple(each for each in found.strays if each.why is not OrphanWhy.UNKNOWN)
        return Comparison(strays, found.young, found.foreign)

    patch.setattr(reconciler, "compare", known_alone)


OF_RESTORES: dict[str, Callable[[Patch], None]] = {
    each.__name__.replace("_", "-"): each
    for each in (
        witnesses_not_asked,
        one_word_opens_the_gate,
        recovery_is_told_and_goes_on,
        recovery_is_heard_with_the_beat_alone,
        recovery_burns_nothing,
        words_of_another_find,
        what_is_unknown_is_nobodys,
    )
}
