"""Our own JWT-SVIDs, through the SPIFFE Workload API, with py-spiffe.

Belongs here: one token per audience, used again until half of its life is over. A token that is asked for shortly
before it is sent somewhere must still be good when it arrives, and when that takes a while.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from spiffe import JwtSvid, SpiffeId, WorkloadApiClient
from spiffe.errors import PySpiffeError

from broker.errors import BrokerError, Reason, Unauthenticated
from broker.secret import Secret
from broker.workloadapi.source import TIMEOUT_SECONDS


@dataclass(frozen=True, slots=True)
class JwtSvidInUse:
    """One JWT-SVID; ``expires_at`` is its own claim."""

    token: Secret
    expires_at: datetime
    use_until: datetime


def no_own_token(why: str) -> Unauthenticated:
    """There is none to log in with."""
    return Unauthenticated(
        Reason.JWT_SVID_MISSING,
        f"The broker has no JWT-SVID of its own to log in with: {why}.",
        hint="Is the SPIFFE agent running, is this its socket, and is this workload registered there?",
    )


class JwtSvids:
    """The JWT-SVIDs that the Workload API at ``endpoint`` gives this process. Safe from any thread.

    ``spiffe_id``: whose, where this process has several SVIDs; by default the first. ``missing`` makes the error.
    """

    def __init__(
        self,
        endpoint: str,
        now: Callable[[], datetime],
        timeout_seconds: float = TIMEOUT_SECONDS,
        spiffe_id: str = "",
        missing: Callable[[str], BrokerError] = no_own_token,
    ) -> None:
        self.endpoint = endpoint
        self._now = now
        self._timeout = timeout_seconds
        self._subject = SpiffeId(spiffe_id) if spiffe_id else None
        self._missing = missing
        self._lock = threading.Lock()
        self._client: WorkloadApiClient | None = None
        self._in_use: dict[str, JwtSvidInUse] = {}

    def token(self, audience: str) -> JwtSvidInUse:
        """The token in use for ``audience``, or a fresh one; blocks for a bounded time.

        Raises what ``missing`` makes, with what the Workload API said.
        """
        with self._lock:
            now = self._now()
            held = self._in_use.get(audience)
            if held is None or now >= held.use_until:
                svid = self._fetched(audience)
                expires_at = datetime.fromtimestamp(svid.expiry, UTC)
                held = JwtSvidInUse(Secret(svid.token), expires_at, now + (expires_at - now) / 2)
                self._in_use[audience] = held
            return held

    def close(self) -> None:
        """Close the connection; :meth:`token` would open it again."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None
            self._in_use.clear()

    def _fetched(self, audience: str) -> JwtSvid:
        try:
            if self._client is None:
                self._client = WorkloadApiClient(self.endpoint)
            return self._client.fetch_jwt_svid({audience}, subject=self._subject, timeout=self._timeout)
        except PySpiffeError as error:
            why = f"the Workload API at {self.endpoint} gave none: {str(error)[:300]}"
        except (KeyError, TypeError, ValueError) as error:  # of a token that lacks a claim
            why = f"what the Workload API at {self.endpoint} gave is none ({type(error).__name__})"
        raise self._missing(why)
