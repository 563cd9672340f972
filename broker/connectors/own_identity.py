"""Who the broker itself is, for connectors that log in upstream with that instead of a key that is kept.

Belongs here: the port, and what stands in for it where brokerd's SVID comes from files, which hold no JWT-SVID.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn, Protocol

from broker.errors import NotReady, Reason
from broker.secret import Secret


@dataclass(frozen=True, slots=True)
class OwnToken:
    """The broker's own JWT-SVID for one audience; ``expires_at`` is what its ``exp`` says."""

    token: Secret
    expires_at: datetime


class OwnIdentity(Protocol):
    """The broker's own identity, as a token."""

    def own_token(self, audience: str) -> OwnToken:
        """A JWT-SVID with at least half of its life left; cached, so ask whenever one is needed.

        Blocks for a bounded time (seconds): call it from a connector's own threads. Safe from any of them.
        Raises Unauthenticated (JWT_SVID_MISSING), NotReady (JWT_SVID_MISSING).
        """
        ...


class NoOwnToken:
    """An identity that has no JWT-SVID."""

    def own_token(self, audience: str) -> NoReturn:
        """Raises NotReady (JWT_SVID_MISSING)."""
        raise NotReady(
            Reason.JWT_SVID_MISSING,
            "brokerd has its identity from files, and a JWT-SVID only comes from a SPIFFE Workload API.",
            hint="Set identity.workload_api in brokerd.yaml, or give the connector a credential by reference.",
            metadata={"audience": ascii(audience)[:200]},
        )
