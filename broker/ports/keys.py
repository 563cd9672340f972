"""Keys: the broker's own, and those that OpenID providers sign with."""

from __future__ import annotations

from typing import Protocol

from broker.identity.oidc_keys import KeySet


class KeyRing(Protocol):
    """Keys, by reference: ``file:PATH`` or ``env:NAME``, never beside the database."""

    def current(self) -> tuple[str, bytes]:
        """(key id, key) to make new MACs with."""
        ...

    def find(self, key_id: str) -> bytes:
        """The key of this id, also an overlapping older one. Raises Tampered for an unknown id."""
        ...


class IssuerKeys(Protocol):
    """The keys with which the configured OpenID providers sign. Answers at once, from memory."""

    def current(self, issuer: str, key_id: str = "") -> KeySet:
        """The keys of ``issuer`` in force.

        Raises :class:`NotReady` (ISSUER_KEYS_UNAVAILABLE) where there are none, where they could not be renewed for
        too long, and, once in a while, where ``key_id`` is not among them and may be new: asking again tells.
        """
        ...
