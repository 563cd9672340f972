"""What connectors to Vault or OpenBao raise: the one place where a failed exchange becomes an error with a reason."""

from __future__ import annotations

from broker.connectors.vault_http import VaultFailure
from broker.errors import Reason, UpstreamFailed


def step_failed(connector: str, step: str, failure: VaultFailure, *, first: bool = False) -> UpstreamFailed:
    """A step that failed; ``first``: before it, nothing can have been made."""
    reason, hint = Reason.UPSTREAM_UNAVAILABLE, "Retry later with the same request_id."
    if first and failure.status in (401, 403):
        reason = Reason.UPSTREAM_ROOT_REFUSED
        hint = "Operators: the broker's own token has expired or its policy lacks this; nothing can be issued."
    elif failure.proves_nothing_was_made and failure.status not in (0, 429):
        reason, hint = Reason.UPSTREAM_REFUSED, "Operators: the role, its policy or the token role is not set up."
    return UpstreamFailed(
        reason,
        f"{connector} could not {step}: {failure.what}.",
        outcome_known=first and failure.proves_nothing_was_made,
        retry_after=failure.retry_after.total_seconds() if failure.retry_after is not None else None,
        hint=hint,
        metadata={"connector": connector, "status": str(failure.status)},
    )


def tending_failed(connector: str, failure: VaultFailure) -> UpstreamFailed:
    """The broker's own token could not be kept alive."""
    return UpstreamFailed(
        Reason.UPSTREAM_ROOT_REFUSED if failure.status in (401, 403) else Reason.UPSTREAM_UNAVAILABLE,
        f"connector {connector} could not renew the broker's own token: {failure.what}",
        hint="Operators: put a fresh token where the connector's `token` refers to, or look at its `jwt` role.",
        metadata={"connector": connector},
    )
