"""What a revocation came to, while nobody can say what time it is: what rests on time alone is not said yet.

EXPIRED is for what only time ends. And where nobody knows whether an upstream has made a credential, that it was
looked for and not found is a proof only once no late create can land any more: a matter of time, too. A clock that was
set forwards would have both said of what lets people in, and final states are final. Pure.
"""

from __future__ import annotations

from datetime import timedelta

from broker.ports.connectors import Expired, NotYet, Revoked, RevokeOutcome
from broker.ports.leases import Attempt
from broker.ports.orphans import Orphan
from broker.timekeeping import Certain

# How soon it is looked at again. Trying costs an upstream little, and what can be revoked was.
AGAIN = timedelta(seconds=30)
_WHY = "the clock is doubted, and only time can tell that it is over."


def certain_outcome(claimed: Attempt | Orphan, outcome: RevokeOutcome, certain: Certain | None) -> RevokeOutcome:
    """``outcome``, or that it is not over yet. ``certain`` None: the clock cannot be doubted."""
    if certain is None or _is_true(claimed, outcome, certain):
        return outcome
    return NotYet(_WHY, AGAIN, failed=False)


def _is_true(claimed: Attempt | Orphan, outcome: RevokeOutcome, certain: Certain) -> bool:
    if isinstance(outcome, Expired):
        return certain.at is not None and certain.at >= claimed.expires_at
    unknown = isinstance(claimed, Attempt) and claimed.activated_at is None
    return certain.settled or not (unknown and isinstance(outcome, Revoked))
