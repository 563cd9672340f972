"""The agent's SVID, and the bundle the broker is believed by, through the SPIFFE Workload API.

Apart from ``svid.py`` so that only who uses it waits for py-spiffe to be imported.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from broker.client.svid import FILE_POLL_SECONDS, Material, bundle_missing, read_pem
from broker.client.tokens import no_token
from broker.identity.bundle import TrustBundle
from broker.workloadapi.jwt_svids import JwtSvids
from broker.workloadapi.source import TIMEOUT_SECONDS, Update, WorkloadApi


class WorkloadApiSource:
    """The default SVID that the Workload API at ``endpoint`` (``unix:///path``) gives this process.

    ``trust_domain`` is the broker's; empty: the one that the SVID names. Its bundle is the one of that name which
    the Workload API gives, or, instead of it, what the file ``bundle`` says.
    """

    def __init__(
        self,
        endpoint: str,
        timeout_seconds: float = TIMEOUT_SECONDS,
        *,
        trust_domain: str = "",
        bundle: Path | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.poll_seconds = FILE_POLL_SECONDS if bundle else 15.0  # a file does not call back
        self._trust_domain = trust_domain
        self._bundle = bundle
        self._api = WorkloadApi(endpoint, timeout_seconds)

    def current(self) -> Material:
        """The SVID now. The first call waits for the Workload API, ``timeout_seconds`` at most."""
        update = self._api.current()
        roots = read_pem(self._bundle) if self._bundle else None

        def own_bundle(own: str) -> TrustBundle:
            return TrustBundle.from_pem(own, update.roots_pem.get(own, b""))

        def bundle(own: str) -> TrustBundle:
            wanted = self._trust_domain or own
            return TrustBundle.from_pem(wanted, self._given(update, wanted, own) if roots is None else roots)

        return Material.of(update.chain_pem, update.key_pem, bundle, own_bundle)

    def _given(self, update: Update, wanted: str, own: str) -> bytes:
        """The roots of ``wanted``; empty if it was sent without any. Absent is another matter: not federated."""
        if wanted not in update.roots_pem and wanted != own:
            raise bundle_missing(wanted, own, update.roots_pem, self.endpoint)
        return update.roots_pem.get(wanted, b"")

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Called from py-spiffe's thread at each push of the Workload API."""
        self._api.subscribe(changed)

    def close(self) -> None:
        """Close the stream to the Workload API."""
        self._api.close()


class WorkloadApiTokens:
    """JWT-SVIDs for ``audience``, of the SVID that :class:`WorkloadApiSource` gives as well (the default one)."""

    def __init__(
        self, endpoint: str, audience: str, now: Callable[[], datetime], timeout_seconds: float = TIMEOUT_SECONDS
    ) -> None:
        self._audience = audience
        self._svids = JwtSvids(endpoint, now, timeout_seconds, missing=no_token)

    def token(self) -> str:
        """The token in use, or a fresh one. Raises :class:`Unauthenticated` (JWT_SVID_MISSING)."""
        return self._svids.token(self._audience).token.reveal()

    def close(self) -> None:
        """Close the connection to the Workload API."""
        self._svids.close()
