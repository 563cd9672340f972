"""TLS material from the SPIFFE Workload API.

Belongs here: the two origins that are what a follower of it heard last. Nothing here waits: asking is the
follower's work (``broker/workloadapi``). What the material must be like is ``tls_material.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.api.tls_material import ServerIdentity, server_identity
from broker.errors import InvalidInput, Reason
from broker.identity.bundle import TrustBundle
from broker.ports.clock import Clock, by_either
from broker.workloadapi.follow import Follower

if TYPE_CHECKING:
    from broker.workloadapi.source import Update

_HINT = (
    "Look at what the SPIFFE agent serves this workload; the entry's SPIFFE ID, DNS names and federation are set there."
)


@dataclass(frozen=True, slots=True)
class PushedIdentity:
    """The broker's own SVID."""

    follower: Follower[Update]
    endpoint: str
    trust_domain: str
    clock: Clock

    def signature(self) -> object:
        """The pair as it was sent last."""
        latest = self.follower.latest
        return latest.chain_pem, latest.key_pem

    def load(self) -> ServerIdentity:
        """The pair. Raises :class:`InvalidInput` (CONFIG_INVALID)."""
        latest = self.follower.latest
        return by_either(
            self.clock,
            lambda now: server_identity(
                latest.chain_pem,
                latest.key_pem,
                trust_domain=self.trust_domain,
                now=now,
                chain_at=f"The SVID from {self.endpoint}",
                key_at=f"The key from {self.endpoint}",
                hint=_HINT,
            ),
        )


@dataclass(frozen=True, slots=True)
class PushedBundle:
    """The roots of one trust domain; None where the Workload API sent none for a ``foreign`` one.

    What is not sent any more was taken away, and is not kept (SPIFFE_Workload_API.md, section 4.4). What is sent
    and is empty or cannot be read is somebody's mistake, and takes nothing's place.
    """

    follower: Follower[Update]
    endpoint: str
    trust_domain: str
    foreign: bool

    def signature(self) -> object:
        """The roots as they were sent last."""
        return self.follower.latest.roots_pem.get(self.trust_domain)

    def load(self) -> TrustBundle | None:
        """The bundle. Raises :class:`InvalidInput` (CONFIG_INVALID)."""
        roots = self.follower.latest.roots_pem.get(self.trust_domain)
        if roots is None and self.foreign:
            return None
        try:
            return TrustBundle.from_pem(self.trust_domain, roots or b"")
        except InvalidInput as error:
            raise InvalidInput(
                Reason.CONFIG_INVALID,
                f"From {self.endpoint}: {error.message}",
                hint=_HINT,
                metadata={**error.metadata, "workloadApi": self.endpoint},
            ) from None
