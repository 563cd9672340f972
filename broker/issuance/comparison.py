"""F9: what the upstream returned, held against what was asked. Pure.

An upstream that grants for longer, or something wider or other, is not believed and not used: what it made is revoked.
One that grants for less time may: its clamp is told in the trail, and the lease ends when the credential does.

What an upstream does not tell cannot be compared. That its answer is whole, and in its own terms what was asked for
(policies of a token, size of a session policy), each connector sees to before it returns at all.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from broker.errors import Reason, UpstreamFailed
from broker.lease.credential import Contract
from broker.ports.connectors import Issued, Returned
from broker.scope.model import Scope

# Upstreams round to whole seconds.
_ROUNDING = timedelta(seconds=1)


def mismatch(
    issued: Issued, scope: Scope, attempt_id: str, expires_at: datetime, contract: Contract
) -> UpstreamFailed | None:
    """Why ``issued`` must not be used; None where it is what was asked, or less of it."""
    what = _longer(issued.expires_at, expires_at, contract) or _other(issued.returned, scope, attempt_id)
    if what is None:
        return None
    return UpstreamFailed(
        Reason.UPSTREAM_GRANT_MISMATCH,
        f"the upstream of connector {scope.connector} granted something else than was asked: {what}.",
        hint="It is being revoked. Operators: the upstream is not set up as the connector's page says.",
        metadata={"connector": scope.connector},
    )


def clamped(issued: Issued, expires_at: datetime) -> timedelta:
    """By how much sooner than asked the upstream itself ends it; zero where that is only its rounding."""
    short = expires_at - issued.expires_at
    return short if short > _ROUNDING else timedelta(0)


def _longer(granted: datetime, asked: datetime, contract: Contract) -> str | None:
    if granted.tzinfo is None:
        return "an end without a time zone"
    if granted <= asked + contract.on_expiry:
        return None
    return f"it ends at {granted.isoformat()}, asked was {asked.isoformat()}"


def _other(returned: Returned, scope: Scope, attempt_id: str) -> str | None:
    asked_role = scope.grant.get("role", scope.grant.get("role_name"))
    if returned.account is not None and returned.account != scope.account:
        return f"it is of account {returned.account[:64]!a}, asked was {scope.account!a}"
    if returned.role is not None and returned.role != asked_role:
        return f"it has the role {returned.role[:64]!a}, asked was {asked_role!a}"
    if returned.name is not None and attempt_id not in returned.name:
        return f"its name {returned.name[:128]!a} is not of attempt {attempt_id}"
    return None
