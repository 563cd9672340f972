"""brokerd's own JWT-SVIDs, for the connectors that log in upstream with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.config import Config
from broker.connectors.own_identity import NoOwnToken, OwnIdentity, OwnToken
from broker.ports.clock import Clock

if TYPE_CHECKING:
    from broker.workloadapi.jwt_svids import JwtSvids


class OwnTokens:
    """Tokens of the identity that brokerd's own X.509-SVID has, from the same Workload API."""

    def __init__(self, svids: JwtSvids) -> None:
        self._svids = svids

    def own_token(self, audience: str) -> OwnToken:
        """See :class:`OwnIdentity`."""
        held = self._svids.token(audience)
        return OwnToken(held.token, held.expires_at)


def own_tokens(config: Config, clock: Clock) -> OwnIdentity:
    """The source that the configuration names; nothing is asked yet."""
    endpoint = config.identity.workload_api
    if endpoint is None:
        return NoOwnToken()
    # With py-spiffe, which a broker whose SVID is in files does not need.
    from broker.workloadapi.jwt_svids import JwtSvids

    return OwnTokens(JwtSvids(endpoint, clock.now, spiffe_id=config.identity.spiffe_id or ""))
