"""Remembering which chains were already proven.

Belongs here: a bounded memory of validations, so that a request on an open connection costs two
comparisons instead of a path validation. It may only ever answer what ``validate_x509_svid`` would
answer: the key is everything that function reads but the time, and the time is compared on every
hit. Refusals are not remembered: they may turn with time, and a stranger must not fill the memory.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime

from broker.identity.agent import Peer
from broker.identity.bundle import Bundles
from broker.identity.svid import validate_x509_svid

_Key = tuple[str, bytes, bytes]


class PeerCache:
    """Least recently used first out, bounded in entries and in bytes of remembered certificates.

    The bound in bytes matters because the peer chooses which intermediates it sends along.
    Not locked: it belongs to the thread of one event loop.
    """

    def __init__(self, *, max_entries: int = 4096, max_bytes: int = 16 * 1024 * 1024) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._bytes = 0
        self._peers: OrderedDict[_Key, Peer] = OrderedDict()

    def __len__(self) -> int:
        return len(self._peers)

    def validate(self, leaf: bytes, intermediates: bytes, bundles: Bundles, now: datetime) -> Peer:
        """As :func:`validate_x509_svid`, same errors, faster from the second time on."""
        key = (bundles.version, leaf, intermediates)
        peer = self._peers.get(key)
        if peer is not None and peer.not_before <= now <= peer.not_after:
            self._peers.move_to_end(key)
            return peer
        # Outside the window another path may still be valid, and if none is, the full answer has the reason. What is
        # remembered stays: while the time is doubted the same is asked by another clock next.
        peer = validate_x509_svid(leaf, intermediates, bundles, now)
        self._forget(key)
        self._remember(key, peer)
        return peer

    def _remember(self, key: _Key, peer: Peer) -> None:
        self._peers[key] = peer
        self._bytes += _size(key)
        while self._peers and (len(self._peers) > self._max_entries or self._bytes > self._max_bytes):
            self._forget(next(iter(self._peers)))

    def _forget(self, key: _Key) -> None:
        if self._peers.pop(key, None) is not None:
            self._bytes -= _size(key)


def _size(key: _Key) -> int:
    return len(key[1]) + len(key[2])
