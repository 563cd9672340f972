"""Which cluster of Vault or OpenBao answers: that something is not there proves its end only where it was made.

An address can be led to another server, and one server is reached by many, so the server itself is asked:
``cluster_id`` of ``sys/health``, made with its storage and the same for all its nodes. A namespace knows the leases of
no other, so it belongs to the place.

It is asked when first needed, whenever the connector is tended, and where the broker's own token is another than it
was: a token works at the cluster that made it, so for as long as it is the same one and is taken, so is the cluster.
"""

from __future__ import annotations

import hmac
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from broker.connectors.vault_calls import VaultCalls
from broker.connectors.vault_http import VaultFailure
from broker.ports.clock import Clock
from broker.ports.connectors import Handle, NotYet
from broker.secret import Secret

# In the handle: where it was made. Handles of older ledgers have none.
_NOTED = "cluster"
# For so long a server that could not be asked is not asked again; one that tells no id, until the next tending.
_PAUSE = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class _Told:
    """What the server said. ``place`` empty: not which it is."""

    token: Secret  # that the broker had then
    place: str
    until: datetime | None  # when it is asked again; None: not by itself


class WhichCluster:
    """The one that ``calls`` reach. Safe from any thread; may block for an exchange, and raises nothing."""

    def __init__(self, calls: VaultCalls, namespace: str, clock: Clock) -> None:
        self._calls = calls
        self._namespace = namespace.strip("/")
        self._clock = clock
        self._told: _Told | None = None

    def ask(self) -> None:
        """Ask it, whatever it said before. Meanwhile that goes on being taken for true, so that no request waits."""
        with suppress(VaultFailure):  # without a token; whatever needs that says so
            self._told = self._asked(self._calls.own_secret())

    def noted(self, handle: Handle) -> Handle:
        """``handle`` with where it is made, if that is known."""
        place = self._place()
        return {**handle, _NOTED: place} if place else handle

    def elsewhere(self, name: str, handle: Handle) -> NotYet | None:
        """Why connector ``name`` can end nothing of ``handle``: another cluster answers. None: none that is known."""
        made_at, here = str(handle.get(_NOTED, "")), self._place() if _NOTED in handle else ""
        if not here or here == made_at:
            return None
        return NotYet(
            f"it was made at cluster {made_at}, and the upstream of {name} is cluster {here} now, which cannot end it:"
            " point the connector there again, or give the new upstream a connector with a name of its own.",
            alone=True,
        )

    def unproven(self, name: str, handle: Handle) -> NotYet | None:
        """Why its absence proves nothing: it was made elsewhere, or where cannot be told. None: it was made here."""
        if _NOTED not in handle or self._place() == handle[_NOTED]:
            return None
        return self.elsewhere(name, handle) or NotYet(
            f"it was made at cluster {handle[_NOTED]}, and the upstream of {name} does not tell which it is"
            " (sys/health): that it is not there proves nothing yet.",
            alone=True,
        )

    def _place(self) -> str:
        """Empty: it cannot be told."""
        told = self._told
        try:
            token = self._calls.own_secret()
        except VaultFailure:
            return ""
        if told is None or not _same(told.token, token) or (told.until is not None and self._clock.now() >= told.until):
            # Several threads may ask at once, the first time: that is no harm, and none waits for another's exchange.
            told = self._told = self._asked(token)
        return told.place

    def _asked(self, token: Secret) -> _Told:
        try:
            cluster = self._calls.cluster_id()
        except VaultFailure as failure:
            # Any answer but a server's failure is of something in front that lets nobody ask: it would be no other.
            for_good = 0 < failure.status < 500
            return _Told(token, "", None if for_good else self._clock.now() + _PAUSE)
        place = f"{cluster}/{self._namespace}" if cluster and self._namespace else cluster
        return _Told(token, place, None)


def _same(one: Secret, other: Secret) -> bool:
    return hmac.compare_digest(one.reveal().encode(), other.reveal().encode())
