"""When an account that was lent for one credential may be lent again: arithmetic, pure.

Disabling an account ends its tokens at once; enabling it makes those accepted again that have not ended by themselves.
So an account rests until the last token that anybody could have of it is long dead, and only then is it enabled.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta

# After the native end of its last token: clocks differ, and enabling early would bring a revoked token back to life.
QUARANTINE = timedelta(hours=1)
# Who enables accounts that have rested looks this often.
TICK = timedelta(minutes=1)


def free_at(now: datetime, token_ends: datetime) -> datetime:
    """When the account may be enabled again; ``token_ends``: the native end of its last token, at the latest."""
    return max(now, token_ends) + QUARANTINE


def last_token_ends(now: datetime, expires_at: datetime, longest: timedelta, *, outcome_known: bool) -> datetime:
    """When, at the latest, a token ends that was made before ``now``, when the account was found disabled.

    An unknown outcome may be a token that was made a moment ago, for as long as the upstream gives at all.
    """
    return expires_at if outcome_known else max(expires_at, now + longest)


def accounts_needed(leases_per_hour: float, ttl: timedelta) -> int:
    """How many accounts serve so many leases in the busiest hour: each is away for its TTL, the rest, and a tick.

    For the TTL although it was revoked sooner: the token's own end does not move.
    """
    away = (ttl + QUARANTINE + TICK) / timedelta(hours=1)
    return max(1, math.ceil(leases_per_hour * away))
