"""When a daemon of several on one ledger must not grant: it was not heard, or has not the deploy set in force."""

from datetime import timedelta

import pytest

from broker.errors import NotReady, Reason
from broker.issuance.among import Among
from broker.ports.replicas import REPLICA_DEAD_AFTER, DeployInForce
from tests.clock import START, TICK
from tests.issuance.test_gate import gate

WITHIN = timedelta(seconds=30)
NEWER = DeployInForce("newer", 2, START)


@pytest.mark.parametrize(
    ("figures", "after", "reason"),
    [
        ({}, timedelta(days=1), None),  # nobody shares its ledger
        ({"heard_at": START}, REPLICA_DEAD_AFTER, None),
        ({"heard_at": START}, REPLICA_DEAD_AFTER + TICK, Reason.REPLICA_UNHEARD),
        ({"in_force": NEWER, "mine": "newer"}, timedelta(days=1), None),
        ({"in_force": NEWER, "mine": "older"}, timedelta(0), None),  # it may be on its way
        ({"in_force": NEWER, "mine": "older"}, WITHIN, None),
        ({"in_force": NEWER, "mine": "older"}, WITHIN + TICK, Reason.DEPLOY_SET_OVERTAKEN),
    ],
)
def test_when_nothing_is_granted(figures: dict[str, object], after: timedelta, reason: Reason | None) -> None:
    """F28, F18: a replica that was left behind stops granting within a stated time."""
    among = Among(WITHIN)
    for name, value in figures.items():
        setattr(among, name, value)
    closed = among.why_closed(START + after)
    assert (closed.reason if closed else None) == reason
    # The gate says the same, and lets no emergency pass over it: another replica is the one to ask.
    gated = gate(among=among, heartbeat=START + after)
    assert gated.why_closed(START + after) == closed or (closed is not None and gated.why_closed(START + after))
    if closed is not None:
        with pytest.raises(NotReady) as refused:
            gated.passed_over(START + after)
        assert refused.value.reason is reason


@pytest.mark.parametrize(
    ("in_force", "overtaken"), [(None, False), (NEWER, True), (NEWER._replace(digest="mine"), False)]
)
def test_whether_another_set_is_in_force(in_force: DeployInForce | None, overtaken: bool) -> None:
    assert Among(WITHIN, mine="mine", in_force=in_force).overtaken is overtaken
