"""Of which worlds a simulation is made: each kind in its turn, and whole rounds of them, so that no seed lacks one.

A world's kind follows from its own seed, so that it is the same world when it is run alone.
"""

from __future__ import annotations

from dataclasses import dataclass

MOST_REPLICAS = 3
# With each number of replicas, three in turn: in one of these old states of the ledger are put back.
KINDS = 3 * MOST_REPLICAS
# In steps. Long enough for the rare to meet the rare; a failure in a longer one takes longer to repeat.
_LONGEST = 120_000
# Shorter ones do little else than begin, and be healed.
_SHORTEST = 40_000
# About what it takes to heal one.
_HEALING = 11_000


@dataclass(frozen=True, slots=True)
class Kind:
    """What is not left to chance. ``restores``: old states of the ledger are put back now and then."""

    replicas: int
    restores: bool


def kind_of(seed: int) -> Kind:
    """Of nine seeds in a row, each number of replicas has three, and one of these restores."""
    return Kind(1 + seed % MOST_REPLICAS, seed // MOST_REPLICAS % 3 == 1)


def lengths(steps: int, longest: int = _LONGEST) -> list[int]:
    """One world after the other: for how many steps each goes on before it is healed; about ``steps`` in all.

    They are whole rounds of all kinds, or, where the steps are too few for that, less than one round.
    """
    rounds = -(-steps // (KINDS * longest))
    worlds = min(rounds * KINDS, max(1, steps // _SHORTEST))
    return [steps // worlds - (_HEALING if worlds > 1 else 0)] * worlds


def whole_rounds(worlds: int) -> bool:
    """Whether each kind had its turn, and none had one more than others."""
    return worlds > 0 and worlds % KINDS == 0
