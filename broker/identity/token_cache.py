"""Remembering which tokens were already proven.

Belongs here: what ``peer_cache.py`` is for certificates. A token comes again with each call until half of its
life is over, and an open stream asks each second. It may only ever answer what ``validate_jwt_svid`` would:
the key is everything that function reads but the time, and the time is compared on every hit. Refusals are
not remembered.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime

from broker.identity.jwt_bundle import JwtBundles
from broker.identity.jwt_svid import LEEWAY, MAX_LIFE, JwtSvid, validate_jwt_svid

# Of at most 8 KiB each.
MAX_ENTRIES = 2048


class TokenCache:
    """Tokens for ``audience``, least recently used first out. It belongs to the thread of one event loop."""

    def __init__(self, audience: str, max_entries: int = MAX_ENTRIES) -> None:
        self._audience = audience
        self._max_entries = max_entries
        self._svids: OrderedDict[tuple[str, str], JwtSvid] = OrderedDict()

    def __len__(self) -> int:
        return len(self._svids)

    def validate(self, token: str, bundles: JwtBundles, now: datetime) -> JwtSvid:
        """As :func:`validate_jwt_svid`, same errors, faster from the second time on."""
        key = (bundles.version, token)
        svid = self._svids.get(key)
        if svid is not None and svid.not_before - LEEWAY <= now < svid.not_after <= now + MAX_LIFE:
            self._svids.move_to_end(key)
            return svid
        # Otherwise the full answer has the reason. What is remembered stays: in doubt another clock is asked next.
        svid = validate_jwt_svid(token, bundles, self._audience, now)
        self._svids.pop(key, None)
        self._svids[key] = svid
        if len(self._svids) > self._max_entries:
            self._svids.popitem(last=False)
        return svid
