"""The SVID through the SPIFFE Workload API, with py-spiffe.

Belongs here: what is particular to py-spiffe. It blocks for ever unless given a time limit, closes a
source for good on some errors (so it is opened again), and keeps the reason for a time-out to itself
(so it is asked for once more, to have something to tell).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NoReturn

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from spiffe import TrustDomain, WorkloadApiClient, X509Source
from spiffe.errors import PySpiffeError
from spiffe.workloadapi.x509_context import X509Context

from broker.client.svid import Material
from broker.errors import Reason, Unauthenticated
from broker.identity.bundle import TrustBundle

TIMEOUT_SECONDS = 5.0


class WorkloadApiSource:
    """The default SVID that the Workload API at ``endpoint`` (``unix:///path``) gives this process."""

    poll_seconds = 15.0

    def __init__(self, endpoint: str, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self.endpoint = endpoint
        self._timeout = timeout_seconds
        self._lock = threading.Lock()
        self._source: X509Source | None = None
        self._subscribers: list[Callable[[], None]] = []

    def current(self) -> Material:
        """The SVID now. The first call waits for the Workload API, ``timeout_seconds`` at most."""
        with self._lock:
            try:
                return _material(self._opened().get_x509_context())
            except PySpiffeError as error:
                self._explain(error)

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Called from py-spiffe's thread at each push of the Workload API."""
        with self._lock:
            self._subscribers.append(changed)

    def close(self) -> None:
        """Close the stream to the Workload API."""
        with self._lock:
            if self._source is not None:
                self._source.close()
                self._source = None

    def _opened(self) -> X509Source:
        if self._source is None or self._source.is_closed():
            self._source = X509Source(socket_path=self.endpoint, timeout_in_seconds=self._timeout)
            self._source.subscribe_for_updates(self._notify)
        return self._source

    def _notify(self) -> None:
        for changed in tuple(self._subscribers):
            changed()

    def _explain(self, error: PySpiffeError) -> NoReturn:
        detail = str(error)
        try:
            client = WorkloadApiClient(self.endpoint)
            try:
                client.fetch_x509_context(timeout=self._timeout)
            finally:
                client.close()
        except PySpiffeError as asked_again:
            detail = str(asked_again)
        raise Unauthenticated(
            Reason.SVID_MISSING,
            f"The SPIFFE Workload API at {self.endpoint} gave no SVID: {detail[:300]}.",
            hint="Is the SPIFFE agent running, is SPIFFE_ENDPOINT_SOCKET its socket, and is this workload "
            "registered there? `broker doctor` looks at each in turn.",
            metadata={"workloadApi": self.endpoint},
        ) from None


def _material(context: X509Context) -> Material:
    svid = context.default_svid
    chain = b"".join(each.public_bytes(Encoding.PEM) for each in svid.cert_chain)
    key = svid.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def bundle(trust_domain: str) -> TrustBundle:
        found = context.x509_bundle_set.get_bundle_for_trust_domain(TrustDomain(trust_domain))
        roots = found.x509_authorities if found else ()
        # py-spiffe keeps roots in a set; in one order, so that the same roots are the same bundle.
        return TrustBundle.from_pem(trust_domain, b"".join(sorted(each.public_bytes(Encoding.PEM) for each in roots)))

    return Material.of(chain, key, bundle)
