"""What an upstream lists, held against what the ledger holds: which of it has to end. Pure.

The order in which the two were read matters. What the upstream lists was read first: whatever the ledger knew by then
it still knows now. What is too young may be known in a moment, or be a create in flight, and is left alone. What names
another ledger is none of ours.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from broker.lease.machine import TERMINAL, State
from broker.lease.mark import Mark
from broker.ports.connectors import Carried
from broker.ports.orphans import HeldUpstream, OrphanWhy


@dataclass(frozen=True, slots=True)
class Stray:
    """Something of ours that has to end."""

    carried: Carried
    why: OrphanWhy


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of it."""

    strays: tuple[Stray, ...]
    young: tuple[Carried, ...]  # unknown, and too young to say
    foreign: int  # another broker's, or another tenant's


def compare(
    carried: Sequence[Carried],
    held: Mapping[str, State],
    mark: Mark,
    born: Mapping[str, datetime],
    settled: datetime,
) -> Comparison:
    """``held``: by name, the ledger's word. ``born``: by name, since when each is there. ``settled``: what was made by
    then is no create in flight any more.
    """
    strays, young, foreign = [], [], 0
    for each in carried:
        state = held.get(each.name)
        if state is not None and state not in TERMINAL:
            continue
        if state is None and each.attempt_id is not None and not mark.owns(each.attempt_id):
            foreign += 1
        elif state is not None:
            strays.append(Stray(each, OrphanWhy.ENDED))
        elif born[each.name] > settled:
            young.append(each)
        else:
            strays.append(Stray(each, OrphanWhy.UNKNOWN))
    return Comparison(tuple(strays), tuple(young), foreign)


def missing(
    active_before: Sequence[HeldUpstream], carried: Sequence[Carried], active_after: Collection[str]
) -> list[HeldUpstream]:
    """What the ledger held ACTIVE before the inventory was taken and holds so still, by id, and is not in it.

    By the name that was noted; where none was, by the attempt's id, if the inventory tells ids at all.
    """
    names = {each.name for each in carried}
    ids = {each.attempt_id for each in carried if each.attempt_id is not None}
    tells_ids = bool(ids) or not carried
    return [
        each
        for each in active_before
        if each.attempt_id in active_after
        and each.attempt_id not in ids
        and (each.upstream not in names if each.upstream else tells_ids)
    ]
