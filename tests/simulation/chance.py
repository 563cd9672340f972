"""The one source of chance of a run, and what it decides: everything follows from the seed."""

from __future__ import annotations

import random
from collections import Counter

_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"


class Chance:
    """Implements the Rng port too. ``told`` counts what came about, by name: a run that is blind shows it here."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.told: Counter[str] = Counter()
        self.calm = False  # nothing goes wrong any more: what is under way must come to its end

    def id(self) -> str:
        return "".join(self._random.choices(_LETTERS, k=26))

    def fraction(self) -> float:
        return self._random.random()

    def between(self, least: float, most: float) -> float:
        return self._random.uniform(least, most)

    def one_of(self, *choices: str) -> str:
        return self._random.choice(choices)

    def sometimes(self, name: str, probability: float) -> bool:
        """Whether a fault of this name comes about; counted if it does."""
        happens = not self.calm and self._random.random() < probability
        self.told[name] += happens
        return happens

    def often(self, probability: float) -> bool:
        """The same for what is no fault."""
        return self._random.random() < probability
