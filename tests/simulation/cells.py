"""Many cells, on paper: which of them a request needs, what a failure takes away, where upstreams are the ceiling.

``python -m tests.simulation.cells`` (``make cells``). A *cell* is one database with its replicas; it serves whole trust
domains and whole upstream accounts. This is a model of arithmetic, not the broker: a request goes to the one cell that
its trust domain and its account are of, or there is none and it is refused. Its figures follow from the options; what
one cell carries is measured by ``make bench``, and the limits of an account are its upstream's.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Cell:
    """One database and its replicas. ``grants_per_s``: what it carries."""

    name: str
    region: str
    grants_per_s: float
    trust_domains: frozenset[str]
    accounts: frozenset[str]


@dataclass(frozen=True, slots=True)
class Request:
    """What decides where it goes: both are in the request itself, so no directory is asked."""

    trust_domain: str
    account: str


@dataclass
class Fleet:
    """All cells. Raises ValueError where a trust domain or an account is of two: none of them could promise its end."""

    cells: Sequence[Cell]
    _by_domain: dict[str, Cell] = field(init=False)
    _by_account: dict[str, Cell] = field(init=False)

    def __post_init__(self) -> None:
        self._by_domain = _one_each((name, cell) for cell in self.cells for name in sorted(cell.trust_domains))
        self._by_account = _one_each((name, cell) for cell in self.cells for name in sorted(cell.accounts))

    def cell_of(self, request: Request) -> Cell | None:
        """The one that can serve it; None: its agent and its account are of two cells, or of none."""
        cell = self._by_domain.get(request.trust_domain)
        return cell if cell is not None and cell is self._by_account.get(request.account) else None


def _one_each(named: Iterable[tuple[str, Cell]]) -> dict[str, Cell]:
    found: dict[str, Cell] = {}
    for name, cell in named:
        if found.setdefault(name, cell) is not cell:
            raise ValueError(f"{name} is of cell {found[name].name} and of cell {cell.name}.")
    return found


@dataclass(frozen=True, slots=True)
class Served:
    """Of one load: grants per second that are served, refused for want of a cell, and over what each limit allows."""

    served: float
    nowhere: float
    over_cell: float
    over_account: float


def carry(fleet: Fleet, load: dict[Request, float], account_limit: float, down: frozenset[str]) -> Served:
    """What becomes of ``load`` (grants per second) while the cells ``down`` are away.

    An account's limit is its own: however many replicas a cell has, they share it. So is a cell's: nobody helps out.
    """
    nowhere, by_account, of = 0.0, dict[str, float](), dict[str, Cell]()
    for request, rate in load.items():
        cell = fleet.cell_of(request)
        if cell is None or cell.name in down:
            nowhere += rate
        else:
            by_account[request.account] = by_account.get(request.account, 0.0) + rate
            of[request.account] = cell
    allowed = {account: min(rate, account_limit) for account, rate in by_account.items()}
    wanted = dict[str, float]()
    for account, rate in allowed.items():
        wanted[of[account].name] = wanted.get(of[account].name, 0.0) + rate
    served = sum(min(wanted.get(cell.name, 0.0), cell.grants_per_s) for cell in fleet.cells)
    return Served(
        served=served,
        nowhere=nowhere,
        over_cell=sum(wanted.values()) - served,
        over_account=sum(by_account.values()) - sum(allowed.values()),
    )


def regular_fleet(cells: int, regions: int, domains: int, accounts: int, grants_per_s: float) -> Fleet:
    """So many cells, spread over regions, with so many trust domains and accounts each."""
    return Fleet(
        [
            Cell(
                f"cell-{number}",
                f"region-{number % regions}",
                grants_per_s,
                frozenset(f"td-{number}-{each}" for each in range(domains)),
                frozenset(f"account-{number}-{each}" for each in range(accounts)),
            )
            for number in range(cells)
        ]
    )


def skewed_load(fleet: Fleet, total: float, seed: int) -> dict[Request, float]:
    """``total`` grants per second over all accounts, as loads are: a few have most of it (by Zipf's law)."""
    accounts = [(cell, account) for cell in fleet.cells for account in sorted(cell.accounts)]
    random.Random(seed).shuffle(accounts)
    weights = [1 / rank for rank in range(1, len(accounts) + 1)]
    chosen = random.Random(seed + 1)
    return {
        Request(chosen.choice(sorted(cell.trust_domains)), account): total * weight / sum(weights)
        for (cell, account), weight in zip(accounts, weights, strict=True)
    }


def main() -> int:
    """Print the figures; 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.cells", description=__doc__)
    parser.add_argument("--cells", type=int, default=12)
    parser.add_argument("--regions", type=int, default=3)
    parser.add_argument("--domains", type=int, default=4, help="trust domains of a cell")
    parser.add_argument("--accounts", type=int, default=25, help="upstream accounts of a cell")
    parser.add_argument("--cell-rate", type=float, default=1000, help="grants/s that one cell carries (make bench)")
    parser.add_argument("--account-rate", type=float, default=50, help="credentials/s that an account's upstream makes")
    parser.add_argument("--load", type=float, default=6000, help="grants/s that are asked for, in all")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    fleet = regular_fleet(asked.cells, asked.regions, asked.domains, asked.accounts, asked.cell_rate)
    load = skewed_load(fleet, asked.load, asked.seed)
    region = frozenset(cell.name for cell in fleet.cells if cell.region == fleet.cells[0].region)
    for name, down in (("all up", frozenset()), ("one cell down", frozenset({"cell-0"})), ("one region down", region)):
        came = carry(fleet, load, asked.account_rate, down)
        print(
            f"{name:16s} {came.served:7.0f} grants/s served, {came.nowhere:6.0f} have no cell,"
            f" {came.over_cell:6.0f} over a cell's rate, {came.over_account:6.0f} over their account's"
        )
    cells = asked.cells * asked.cell_rate
    accounts = asked.cells * asked.accounts * asked.account_rate
    print(f"ceiling: {cells:.0f} grants/s by cells, {accounts:.0f} by {asked.cells * asked.accounts} upstream accounts")
    busiest = max(load.values())
    print(f"busiest account: {busiest:.0f} grants/s asked, {asked.account_rate:.0f} allowed, whatever the cells are")
    print("between cells on the grant path: 0 messages; a request names its trust domain and its account")
    return 0


if __name__ == "__main__":
    sys.exit(main())
