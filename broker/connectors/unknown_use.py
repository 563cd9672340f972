"""What every connector says where it cannot tell whether a credential works."""

from __future__ import annotations

from broker.errors import Reason, UpstreamFailed


def cannot_tell(connector: str, why: str) -> UpstreamFailed:
    """The failure to raise: a credential is dead only where the upstream refused it. ``why`` holds nothing secret."""
    return UpstreamFailed(
        Reason.CREDENTIAL_USE_UNKNOWN,
        f"{connector}: whether the credential works could not be told: {why}.",
        metadata={"connector": connector},
    )
