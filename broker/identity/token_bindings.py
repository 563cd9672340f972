"""Which proxy showed a token first.

Belongs here: a bounded memory of (token, proxy), each entry until its token expires. A JWT-SVID is a
bearer token without a ``jti``, and SPIRE serves the same one again until it is half used, so a repeat by
the proxy that showed it first is honest; the same token from another proxy was copied somewhere.

Full means refused: to forget a living token in order to remember a new one would let its copy in. One agent
can fill only its own part, so that it cannot lock out the others. Not locked: it belongs to the thread of one
event loop. It does not outlive the process, so for the rest of
their lives (five minutes at most) tokens shown before a restart may bind anew.
"""

from __future__ import annotations

import heapq
from collections import Counter
from datetime import datetime

from broker.errors import Exhausted, Reason, Unauthenticated
from broker.identity.jwt_svid import JwtSvid
from broker.identity.spiffe_id import SpiffeId

# Each entry is some 300 bytes. An agent shows one or two tokens in the five minutes that an entry lives.
MAX_TOKENS = 65_536
# One SPIFFE ID may stand for a thousand replicas, each with a token or two.
MAX_TOKENS_OF_ONE = 4_096


class TokenBindings:
    """Tokens in use, and whose they are."""

    def __init__(self, max_tokens: int = MAX_TOKENS, max_tokens_of_one: int = MAX_TOKENS_OF_ONE) -> None:
        self._max_tokens = max_tokens
        self._max_tokens_of_one = max_tokens_of_one
        self._proxies: dict[str, SpiffeId] = {}
        self._of_agent: Counter[SpiffeId] = Counter()
        self._by_end: list[tuple[datetime, str, SpiffeId]] = []
        # Entries that ended by then are forgotten, so no token that did is believed again, whatever the clock says.
        self._forgotten: datetime | None = None

    def __len__(self) -> int:
        return len(self._proxies)

    def bind(self, svid: JwtSvid, proxy: SpiffeId, now: datetime) -> None:
        """``proxy`` shows ``svid``, validated at ``now``: bind it, or recognise it.

        Raises :class:`Unauthenticated` (JWT_SVID_OF_ANOTHER_PROXY; JWT_SVID_EXPIRED where the clock was
        set back) or :class:`Exhausted` (TOO_MANY_PROXIED_TOKENS); then nothing has changed.
        """
        self._forget_ended(now)
        if self._forgotten is not None and svid.not_after <= self._forgotten:
            raise Unauthenticated(
                Reason.JWT_SVID_EXPIRED,
                f"The JWT-SVID was valid until {svid.not_after.isoformat()}, which has been: the clock was set back.",
                hint="Fetch a fresh JWT-SVID; operators: look at the broker's clock.",
                metadata={"notAfter": svid.not_after.isoformat(), "now": now.isoformat()},
            )
        bound = self._proxies.get(svid.digest)
        if bound == proxy:
            return
        if bound is not None:
            raise Unauthenticated(
                Reason.JWT_SVID_OF_ANOTHER_PROXY,
                f"The JWT-SVID of {svid.spiffe_id} was first shown by another proxy, {bound}.",
                hint="A token stays with the proxy it was first sent through; fetch a fresh one for another. "
                "Operators: if nobody moved, the token was copied.",
                metadata={"spiffeId": str(svid.spiffe_id), "boundTo": str(bound), "token": svid.digest},
            )
        if self._of_agent[svid.spiffe_id] >= self._max_tokens_of_one:
            raise _full(self._max_tokens_of_one, f"of {svid.spiffe_id} ")
        if len(self._proxies) >= self._max_tokens:
            raise _full(self._max_tokens, "")
        self._proxies[svid.digest] = proxy
        self._of_agent[svid.spiffe_id] += 1
        heapq.heappush(self._by_end, (svid.not_after, svid.digest, svid.spiffe_id))

    def _forget_ended(self, now: datetime) -> None:
        while self._by_end and self._by_end[0][0] <= now:
            self._forgotten, digest, agent = heapq.heappop(self._by_end)
            del self._proxies[digest]
            self._of_agent[agent] -= 1
            if not self._of_agent[agent]:
                del self._of_agent[agent]


def _full(limit: int, of_whom: str) -> Exhausted:
    return Exhausted(
        Reason.TOO_MANY_PROXIED_TOKENS,
        f"{limit} unexpired tokens {of_whom}are in use through proxies, and no more are admitted.",
        hint="Use a token again for as long as it lives, as the Workload API does; older ones end within five minutes.",
        metadata={"limit": str(limit)},
    )
