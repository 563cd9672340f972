"""The model of cells: where a request can be served, and what is left where something is down."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.house.project import ROOT
from tests.simulation.cells import Cell, Fleet, Request, carry, regular_fleet, skewed_load

NOTHING_DOWN = frozenset[str]()


def cell(name: str, domains: set[str], accounts: set[str], rate: float = 100) -> Cell:
    return Cell(name, "r1", rate, frozenset(domains), frozenset(accounts))


TWO = Fleet([cell("one", {"td1"}, {"a1", "a2"}), cell("two", {"td2"}, {"b1"})])


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        (Request("td1", "a1"), "one"),
        (Request("td2", "b1"), "two"),
        (Request("td1", "b1"), None),  # of two cells: none of them could end all that the other has to
        (Request("td3", "a1"), None),
        (Request("td1", "c1"), None),
    ],
)
def test_a_request_is_served_by_the_one_cell_of_its_trust_domain_and_its_account(
    request_: Request, name: str | None
) -> None:
    found = TWO.cell_of(request_)
    assert (found.name if found else None) == name


@pytest.mark.parametrize("other", [cell("two", {"td1"}, {"b1"}), cell("two", {"td2"}, {"a1"})])
def test_nothing_is_of_two_cells(other: Cell) -> None:
    with pytest.raises(ValueError, match="of cell one and of cell two"):
        Fleet([cell("one", {"td1"}, {"a1"}), other])


def test_a_cell_that_is_down_takes_only_its_own_with_it() -> None:
    load = {Request("td1", "a1"): 10.0, Request("td2", "b1"): 20.0}
    down = carry(TWO, load, 50, frozenset({"one"}))
    assert (down.served, down.nowhere) == (20.0, 10.0)


def test_what_an_upstream_allows_an_account_is_the_ceiling_however_much_the_cell_carries() -> None:
    came = carry(TWO, {Request("td1", "a1"): 90.0, Request("td1", "a2"): 5.0}, 50, NOTHING_DOWN)
    assert (came.served, came.over_account, came.over_cell) == (55.0, 40.0, 0.0)


def test_a_cell_gives_no_more_than_it_carries() -> None:
    came = carry(TWO, {Request("td1", "a1"): 90.0, Request("td1", "a2"): 90.0}, 80, NOTHING_DOWN)
    assert (came.served, came.over_account, came.over_cell) == (100.0, 20.0, 60.0)


def test_nothing_is_lost_in_the_count() -> None:
    fleet = regular_fleet(cells=6, regions=3, domains=2, accounts=5, grants_per_s=100)
    load = skewed_load(fleet, 700, seed=3)
    region = frozenset(each.name for each in fleet.cells if each.region == "region-1")
    for down in (NOTHING_DOWN, region):
        came = carry(fleet, load, 40, down)
        assert came.served + came.nowhere + came.over_cell + came.over_account == pytest.approx(700)
    assert carry(fleet, load, 40, region).served < carry(fleet, load, 40, NOTHING_DOWN).served


def test_the_command_prints_its_figures() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation.cells"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "one region down" in done.stdout
    assert "0 messages" in done.stdout
