"""What a failed exchange with Google Cloud proves, as the port's own errors and outcomes."""

from __future__ import annotations

from datetime import datetime, timedelta

from broker.connectors.gcp_http import GcpFailure
from broker.connectors.gcp_mint import Mismatch
from broker.connectors.refusals import grant_mismatch
from broker.errors import Reason, UpstreamExhausted, UpstreamFailed
from broker.ports.connectors import NotYet, Refused

_RETRY = "Retry later with the same request_id."
_HINTS = {
    400: "Operators: is the service account disabled, or the lifetime or a scope one that Google does not take?",
    403: "Operators: the broker needs iam.serviceAccounts.getAccessToken on this service account.",
    404: "Operators: there is no such service account; `broker connectors doctor` looks at each.",
}


def told(failure: GcpFailure, connector: str, step: str) -> UpstreamFailed:
    """The failure of one ``step`` of issuing, in the port's words."""
    reason, hint = Reason.UPSTREAM_UNAVAILABLE, _RETRY
    # Nothing that Google itself has said about the request.
    bare = failure.status >= 400 and not failure.code
    busy = bare or not failure.answered or failure.status == 429 or failure.status >= 500
    if failure.own_credential and not busy:
        reason = Reason.UPSTREAM_ROOT_REFUSED
        hint = "Operators: check the connector's `credentials`, and the Workload API where it is federation."
    elif 400 <= failure.status < 500 and not busy:
        reason = Reason.UPSTREAM_REFUSED
        hint = _HINTS.get(failure.status, "Operators: look the code up in Google's documentation.")
    return UpstreamFailed(
        reason,
        f"{connector} could not {step}: {failure.what}.",
        outcome_known=failure.proves_nothing_was_made,
        retry_after=failure.retry_after.total_seconds() if failure.retry_after is not None else None,
        hint=hint,
        metadata={"connector": connector, "status": str(failure.status), "code": failure.code},
    )


def mismatched(mismatch: Mismatch, connector: str) -> UpstreamFailed:
    """Something was made, and it is not what was asked: it is never delivered."""
    hint = "Operators: is the endpoint really Google's, and is this machine's clock right?"
    return grant_mismatch(connector, mismatch.what, hint)


def exhausted(connector: str, pool: str, accounts: int, free_at: datetime, now: datetime) -> UpstreamExhausted:
    """Every account of the pool is lent or rests. ``free_at``: when the first is ready again, at the latest."""
    seconds = max(1.0, (free_at - now).total_seconds())
    return UpstreamExhausted(
        Reason.UPSTREAM_POOL_EXHAUSTED,
        f"all {accounts} service accounts of pool {pool} are lent, or rest after they were; the first is ready again"
        f" in {seconds:.0f} s at the latest.",
        outcome_known=True,
        retry_after=seconds,
        hint="Ask again then; operators: the connector's page says how large a pool must be.",
        metadata={
            "connector": connector,
            "pool": pool,
            "accounts": str(accounts),
            "readyInSeconds": f"{seconds:.0f}",
        },
    )


def not_revoked(failure: GcpFailure, connector: str) -> NotYet | Refused:
    """The same while ending something: only proof ends it, so each of these is tried again."""
    what = f"{connector}: {failure.what}."
    if failure.status in (401, 403):
        return Refused(what)
    return NotYet(what, failure.retry_after or timedelta(0) or None)
