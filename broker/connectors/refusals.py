"""What a connector of any kind says itself: that it did not begin, and that an answer is not what was asked for."""

from __future__ import annotations

from datetime import timedelta

from broker.errors import Reason, UpstreamFailed

SEE_PAGE = "Operators: see the connector's page for the set-up."


def not_begun(connector: str, why: str, hint: str) -> UpstreamFailed:
    """Nothing was asked, so nothing was made."""
    return UpstreamFailed(
        Reason.UPSTREAM_UNAVAILABLE, why, outcome_known=True, hint=hint, metadata={"connector": connector}
    )


def replaced(connector: str) -> UpstreamFailed:
    """It is closing: a reload has made another in its place."""
    return not_begun(connector, f"{connector} is being replaced by a newer definition.", "Ask again.")


def too_late(connector: str) -> UpstreamFailed:
    """Nothing is left of the time that the credential was to live."""
    return not_begun(
        connector, f"the credential's time was over before {connector} could be asked.", "Ask for a longer TTL."
    )


def check_can_begin(connector: str, *, closed: bool, left: timedelta, least: timedelta = timedelta.resolution) -> None:
    """Raises :class:`UpstreamFailed` (outcome known) where it is closed, or ``left`` is less than ``least``."""
    if closed:
        raise replaced(connector)
    if left < least:
        raise too_late(connector)


def grant_mismatch(connector: str, what: str, hint: str = SEE_PAGE) -> UpstreamFailed:
    """The upstream granted something else than was asked; what it made is never delivered."""
    return UpstreamFailed(
        Reason.UPSTREAM_GRANT_MISMATCH,
        f"{connector} granted something else than was asked: {what}.",
        hint=hint,
        metadata={"connector": connector},
    )
