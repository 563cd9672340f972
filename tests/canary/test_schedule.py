"""When a canary is due, and what can be measured of a contract."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from broker.canary.canary import Kind, bound, due, kinds
from broker.lease.credential import ContractClass
from tests.connectors.fake import contract

NOW = datetime(2031, 5, 1, 12, tzinfo=UTC)
EVERY = timedelta(minutes=10)
R, E = Kind.ON_REVOKE, Kind.ON_EXPIRY


def ago(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)


@pytest.mark.parametrize(
    ("last", "turn"),
    [
        ({}, (R, E)),
        ({R: ago(0)}, (E,)),
        ({R: ago(0), E: ago(0)}, ()),
        ({R: ago(9.99), E: ago(9.99)}, ()),
        ({R: ago(10), E: ago(9)}, (R,)),
        ({R: ago(11), E: ago(12)}, (R, E)),
        ({R: ago(-1), E: ago(0)}, (R,)),  # begun in the future: the clock was put back
    ],
)
def test_whose_turn_it_is(last: dict[Kind, datetime], turn: tuple[Kind, ...]) -> None:
    assert due((R, E), last, EVERY, NOW) == turn


def test_where_only_time_ends_a_credential_only_its_expiry_is_measured() -> None:
    assert kinds(contract(ContractClass.EXPIRY_ONLY)) == (E,)
    assert bound(contract(ContractClass.EXPIRY_ONLY), R) is None
    immediate = contract()
    assert kinds(immediate) == (R, E)
    assert (bound(immediate, R), bound(immediate, E)) == (immediate.on_revoke, immediate.on_expiry)
