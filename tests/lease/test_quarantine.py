"""When an account may be lent again: arithmetic, at its edges."""

from datetime import UTC, datetime, timedelta

import pytest

from broker.lease.quarantine import accounts_needed, free_at, last_token_ends

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_it_rests_an_hour_from_the_end_of_its_last_token_or_from_now() -> None:
    assert free_at(NOW, NOW + HOUR) == NOW + 2 * HOUR
    assert free_at(NOW, NOW - HOUR) == NOW + HOUR


def test_a_known_token_ends_at_its_own_end() -> None:
    assert last_token_ends(NOW, NOW - HOUR, 12 * HOUR, outcome_known=True) == NOW - HOUR


def test_an_unknown_one_may_have_been_made_a_moment_ago() -> None:
    assert last_token_ends(NOW, NOW - HOUR, 12 * HOUR, outcome_known=False) == NOW + 12 * HOUR
    assert last_token_ends(NOW, NOW + 20 * HOUR, 12 * HOUR, outcome_known=False) == NOW + 20 * HOUR


@pytest.mark.parametrize(
    ("leases_per_hour", "minutes", "needed"),
    [(0, 15, 1), (0.1, 15, 1), (1, 59, 2), (60, 59, 120), (60, 60, 121), (10, 15, 13)],
)
def test_how_many_accounts_serve_the_busiest_hour(leases_per_hour: float, minutes: int, needed: int) -> None:
    # Away for the TTL, an hour and a minute.
    assert accounts_needed(leases_per_hour, timedelta(minutes=minutes)) == needed
