"""The JWT bundles we were given, through the SPIFFE Workload API, with py-spiffe.

Belongs here: what is particular to py-spiffe about them. It would throw a whole answer away for one foreign
bundle that it cannot read, takes the last of two keys with one id, and keeps no key's use, so what is taken
from it is the answer and not its reading of it. Nothing is judged here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from spiffe import WorkloadApiClient
from spiffe.errors import PySpiffeError

from broker.errors import Reason, Unauthenticated
from broker.workloadapi.source import TIMEOUT_SECONDS

# A key that was taken out must not be believed for long: with a second each for the follower and for whoever looks
# at it, it is gone everywhere within five.
ASK_SECONDS = 2.0


class JwtBundlesApi:
    """The JWT bundles that the Workload API at ``endpoint`` gives this process. Safe from any thread."""

    def __init__(
        self,
        endpoint: str,
        timeout_seconds: float = TIMEOUT_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.endpoint = endpoint
        self._timeout = timeout_seconds
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._client: _Client | None = None
        self._answer: Mapping[str, bytes] = {}
        self._asked_at: float | None = None

    def current(self) -> Mapping[str, bytes]:
        """A JWK Set by trust domain, at most ``ASK_SECONDS`` old.

        Raises :class:`Unauthenticated` (SVID_MISSING) with what the Workload API said.
        """
        with self._lock:
            moment = self._monotonic()
            if self._asked_at is None or moment - self._asked_at >= ASK_SECONDS:
                self._answer = self._fetch()
                self._asked_at = moment
            return self._answer

    def subscribe(self, changed: Callable[[], None]) -> None:
        """It is asked and does not call back; a follower looks again by itself."""

    def close(self) -> None:
        """Close the connection; :meth:`current` would open it again."""
        with self._lock:
            if self._client is not None:
                self._client.close()
            self._client = self._asked_at = None

    def _fetch(self) -> Mapping[str, bytes]:
        try:
            if self._client is None:
                self._client = _Client(self.endpoint)
            return self._client.documents(self._timeout)
        except PySpiffeError as error:
            self._asked_at = None
            raise Unauthenticated(
                Reason.SVID_MISSING,
                f"The SPIFFE Workload API at {self.endpoint} gave no JWT bundles: {str(error)[:300]}.",
                hint="Is the SPIFFE agent running, is this its socket, and is this workload registered there?",
                metadata={"workloadApi": self.endpoint},
            ) from None


class _Client(WorkloadApiClient):
    """py-spiffe's client, with the documents as they were sent."""

    def documents(self, timeout: float) -> Mapping[str, bytes]:
        """By trust domain, without ``spiffe://``."""
        self._sent: dict[str, bytes] = {}
        self.fetch_jwt_bundles(timeout)
        return self._sent

    def _call_fetch_jwt_bundles(self, timeout: float | None = None) -> Any:
        answer = super()._call_fetch_jwt_bundles(timeout)
        self._sent = {name.removeprefix("spiffe://"): bytes(jwks) for name, jwks in answer.bundles.items()}
        answer.ClearField("bundles")
        return answer
