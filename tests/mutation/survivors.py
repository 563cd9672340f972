"""Mutants that no test kills, against those that are explained."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

EXPLAINED = Path(__file__).with_name("survivors.toml")
# A mutant that never ends is found out as surely as one that fails.
KILLED = frozenset({"killed", "timeout", "caught by type check"})
ALIVE = frozenset({"survived", "no tests", "suspicious"})
_MUTANT = re.compile(r"(?P<module>[\w.]+)\.x(?:_(?P<function>\w+?)|ǁ(?P<method>[^.]+?))__mutmut_\d+")


@dataclass(frozen=True, slots=True)
class Tally:
    """Of one room: mutants that tests killed, and of those that live, how many in each function."""

    killed: int
    alive: Mapping[str, int]

    @property
    def share(self) -> float:
        """How much of all was killed, from 0 to 1."""
        alive = sum(self.alive.values())
        return self.killed / (self.killed + alive) if self.killed + alive else 1.0


def function_of(mutant: str) -> str:
    """``broker.lease.root.x__deny__mutmut_3`` is of ``broker.lease.root._deny``; raises ValueError."""
    found = _MUTANT.fullmatch(mutant)
    if found is None:
        raise ValueError(f"{mutant!r} is no mutant's name")
    name = found["function"] or found["method"].replace("ǁ", ".")
    return f"{found['module']}.{name}"


def tallies(results: Iterable[tuple[str, str]]) -> dict[str, Tally]:
    """Of each room, from (mutant, status). Raises ValueError for a status that says neither."""
    killed: Counter[str] = Counter()
    alive: dict[str, Counter[str]] = {}
    for mutant, status in results:
        room = mutant.split(".")[1]
        alive.setdefault(room, Counter())
        if status in KILLED:
            killed[room] += 1
        elif status in ALIVE:
            alive[room][function_of(mutant)] += 1
        else:
            raise ValueError(f"{mutant}: {status}: it was not run")
    return {room: Tally(killed[room], alive[room]) for room in sorted(alive)}


def explained() -> dict[str, int]:
    """How many may live in each function, by ``survivors.toml``; each says why."""
    told = tomllib.loads(EXPLAINED.read_text())["survivor"]
    return {each["function"]: each["mutants"] for each in told if each["why"]}


def unexplained(found: Mapping[str, Tally], allowed: Mapping[str, int]) -> Iterator[str]:
    """A line for each function in which more live than is explained."""
    for tally in found.values():
        for function, mutants in sorted(tally.alive.items()):
            if mutants > allowed.get(function, 0):
                yield f"{function}: {mutants} live, {allowed.get(function, 0)} are explained"
