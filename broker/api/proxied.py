"""Who is asking, on the proxies' listener: an allowed proxy by its certificate, an agent by its token.

Belongs here: putting the proofs together, for each call anew. The connection's X.509-SVID must be valid and
of a proxy that operators named; the call's JWT-SVID must be valid and first shown by this proxy. What
comes out is the agent's :class:`Peer` with the proxy's in it, and from there on nothing differs from the
agents' listener.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from broker.api.bearer import Metadata, bearer_token
from broker.errors import BrokerError, Denied, Reason
from broker.identity.agent import Peer
from broker.identity.jwt_bundle import JwtBundles
from broker.identity.spiffe_id import SpiffeId
from broker.identity.token_bindings import TokenBindings
from broker.identity.token_cache import TokenCache
from broker.ports.clock import Clock, by_either, earliest

# Where this listener's transport differs from the agents' (``tls.SERVER_OPTIONS``).
PROXY_OPTIONS: tuple[tuple[str, int], ...] = (
    # A token alone may have 8 KiB; what is a little larger shall be told so by us, not dropped by the transport.
    # Above the first limit metadata may be refused, above the second it always is.
    ("grpc.max_metadata_size", 32 * 1024),
    ("grpc.absolute_max_metadata_size", 64 * 1024),
    # A proxy's connection carries many agents' calls; there, a hundred are one agent's.
    ("grpc.max_concurrent_streams", 10_000),
)
_HOW = "On the proxies' listener each call carries the agent's JWT-SVID: authorization: Bearer TOKEN, once."


class ProxiedIdentity:
    """Turns a call on the proxies' listener into a validated peer, or refuses it.

    ``certified`` validates the connection's certificate (as on the agents' listener), ``bundles`` are the
    JWT bundles in force. Not locked: it belongs to one event loop.
    """

    def __init__(
        self,
        certified: Callable[[Mapping[str, Any]], Peer],
        bundles: Callable[[], JwtBundles],
        allowed: Collection[SpiffeId],
        audience: str,
        clock: Clock,
        bindings: TokenBindings | None = None,
    ) -> None:
        self._certified = certified
        self._bundles = bundles
        self._allowed = frozenset(allowed)
        self._tokens = TokenCache(audience)
        self._clock = clock
        self._bindings = TokenBindings() if bindings is None else bindings

    def identify(self, auth_context: Mapping[str, Any], metadata: Metadata) -> Peer:
        """The agent that this call is from, brought by an allowed proxy.

        Raises :class:`Unauthenticated`, :class:`Denied` (PROXY_NOT_ALLOWED) or :class:`Exhausted`; once the
        proxy is known, its id stands in the metadata, since of the agent nothing is.
        """
        proxy = self._certified(auth_context)
        try:
            return self._agent(proxy, metadata)
        except BrokerError as refused:
            refused.metadata["proxy"] = str(proxy.spiffe_id)
            raise

    def _agent(self, proxy: Peer, metadata: Metadata) -> Peer:
        if proxy.spiffe_id not in self._allowed:
            raise Denied(
                Reason.PROXY_NOT_ALLOWED,
                f"{proxy.spiffe_id} may not bring others' calls.",
                hint="Agents call the agents' listener. Operators name their proxies in proxies.allow.",
                metadata={"spiffeId": str(proxy.spiffe_id)},
            )
        token = bearer_token(metadata, Reason.JWT_SVID_MISSING, _HOW)
        svid = by_either(self._clock, lambda at: self._tokens.validate(token, self._bundles(), at))
        # A token that is over by one clock alone may be shown again: it stays bound until it is over by both.
        self._bindings.bind(svid, proxy.spiffe_id, earliest(self._clock))
        return Peer(
            spiffe_id=svid.spiffe_id,
            not_before=max(svid.not_before, proxy.not_before),
            not_after=min(svid.not_after, proxy.not_after),
            serial=proxy.serial,
            fingerprint=svid.digest,
            proxy=proxy,
        )
