"""Our SVID and the bundles we were given, through the SPIFFE Workload API, with py-spiffe.

Belongs here: what is particular to py-spiffe. It blocks for ever unless given a time limit, closes a
source for good on some errors (so it is opened again), keeps the reason for a time-out to itself (so it is
asked for once more, to have something to tell), and throws a whole answer away for one foreign bundle that
it cannot read (so those are read one by one). Nothing is judged here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from spiffe import TrustDomain, WorkloadApiClient, X509Bundle, X509BundleSet, X509Source, X509Svid
from spiffe.errors import PySpiffeError
from spiffe.workloadapi.x509_context import X509Context

from broker.errors import Reason, Unauthenticated
from broker.identity.spiffe_id import is_trust_domain

TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Update:
    """One whole answer of the Workload API, in PEM.

    ``roots_pem`` has the roots of every trust domain that was sent, in one order. Empty: the trust domain was
    sent without a root that could be read; absent: it was taken away (SPIFFE_Workload_API.md, section 4.4).
    """

    chain_pem: bytes  # the leaf, then its intermediates
    key_pem: bytes = field(repr=False)
    roots_pem: Mapping[str, bytes]


class WorkloadApi:
    """What the Workload API at ``endpoint`` (``unix:///path``) gives this process. Safe from any thread.

    ``spiffe_id``: which SVID to take where there are several; by default the first (section 5.3).
    """

    def __init__(self, endpoint: str, timeout_seconds: float = TIMEOUT_SECONDS, spiffe_id: str = "") -> None:
        self.endpoint = endpoint
        self._timeout = timeout_seconds
        self._spiffe_id = spiffe_id
        self._lock = threading.Lock()
        self._client: _Client | None = None
        self._source: X509Source | None = None
        self._subscribers: list[Callable[[], None]] = []

    def current(self) -> Update:
        """The last answer. Where there is none yet, or py-spiffe gave up, this asks, and waits for a bounded time.

        Raises :class:`Unauthenticated` (SVID_MISSING) with what the Workload API said.
        """
        with self._lock:
            try:
                return _update(self._opened().get_x509_context())
            except PySpiffeError as error:
                self._explain(error)

    def subscribe(self, changed: Callable[[], None]) -> None:
        """``changed`` is called at each answer, from py-spiffe's thread; not when py-spiffe gives up."""
        with self._lock:
            self._subscribers.append(changed)

    def close(self) -> None:
        """Close the stream to the Workload API; :meth:`current` would open it again."""
        with self._lock:
            self._close()

    def _opened(self) -> X509Source:
        if self._source is None or self._source.is_closed():
            self._close()
            self._client = _Client(self.endpoint)
            self._source = X509Source(
                workload_api_client=self._client, timeout_in_seconds=self._timeout, svid_picker=self._pick
            )
            self._source.subscribe_for_updates(self._notify)
        return self._source

    def _close(self) -> None:
        if self._source is not None:
            self._source.close()
        if self._client is not None:
            self._client.close()
        self._source = self._client = None

    def _pick(self, svids: list[X509Svid]) -> X509Svid:
        for svid in svids:
            if self._spiffe_id in ("", str(svid.spiffe_id)):
                return svid
        told = ", ".join(str(svid.spiffe_id) for svid in svids)
        raise ValueError(f"{self._spiffe_id} is not among {told}")

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
            hint="Is the SPIFFE agent running, is this its socket, and is this workload registered there? "
            "For agents, `broker doctor` looks at each in turn.",
            metadata={"workloadApi": self.endpoint},
        ) from None


class _Client(WorkloadApiClient):
    """py-spiffe's client, for which one foreign bundle that cannot be read is no reason to miss a rotation."""

    @staticmethod
    def _create_x509_bundle_set(resp_bundles: Mapping[str, bytes]) -> X509BundleSet:
        bundles = X509BundleSet({})
        for name, der in resp_bundles.items():
            # py-spiffe would fold other spellings into one name; here another spelling is nobody's.
            plain = name.removeprefix("spiffe://")
            if not is_trust_domain(plain):
                continue
            trust_domain = TrustDomain(plain)
            try:
                bundles.put(X509Bundle.parse_raw(trust_domain, der))
            except PySpiffeError:
                bundles.put(X509Bundle(trust_domain, None))
        return bundles


def _update(context: X509Context) -> Update:
    svid = context.default_svid
    return Update(
        chain_pem=b"".join(each.public_bytes(Encoding.PEM) for each in svid.cert_chain),
        key_pem=svid.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        # py-spiffe keeps roots in a set; in one order, so that the same roots are the same bundle.
        roots_pem={
            bundle.trust_domain.name: b"".join(
                sorted(root.public_bytes(Encoding.PEM) for root in bundle.x509_authorities)
            )
            for bundle in context.x509_bundle_set.bundles
        },
    )
