"""TLS at the gRPC door: who may connect, and who a connection turned out to be.

Belongs here: server credentials that follow their material, the transport limits of the door, and the way from
gRPC's ``auth_context`` to a validated :class:`Peer`. TLS (1.2 or later, the library's floor) requires a
client certificate from *some* bundle; who it stands for is decided by ``broker/identity/svid.py`` for each request,
because a connection outlives its certificate and ``peer_spiffe_id`` is bound to no trust domain.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import grpc

from broker.api.tls_material import LastGood, Origin, ServerIdentity, compose
from broker.errors import BrokerError, NotReady, Reason, Unauthenticated
from broker.identity.agent import Peer
from broker.identity.bundle import Bundles, TrustBundle
from broker.identity.peer_cache import PeerCache
from broker.ports.clock import Clock, earliest

MAX_MESSAGE_BYTES = 64 * 1024

# Transport limits of every port that serves this door, with the reason for each.
SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    # A second brokerd on the same port must fail to bind, not silently take half of the connections.
    ("grpc.so_reuseport", 0),
    # Forces a new handshake, and with it the current certificate and roots; gRPC spreads it by 10 %. Streams
    # get the grace to be reopened elsewhere.
    ("grpc.max_connection_age_ms", 15 * 60_000),
    ("grpc.max_connection_age_grace_ms", 30_000),
    ("grpc.max_connection_idle_ms", 10 * 60_000),
    # A stalled handshake holds a socket: the default is two minutes.
    ("grpc.server_handshake_timeout_ms", 10_000),
    # A holder that vanished without a FIN is noticed within 30 s, so that its task can end.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Clients may ping idle connections, at most every 10 s; who pings faster is sent away.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 2),
    # One agent's connection cannot hold all the workers; a task needs a handful of streams.
    ("grpc.max_concurrent_streams", 100),
    # The door refuses what is above MAX_MESSAGE_BYTES before parsing it, with a reason and an audit event; what
    # is above this, the transport refuses without either. Answers list many leases.
    ("grpc.max_receive_message_length", 1024 * 1024),
    ("grpc.max_send_message_length", 4 * 1024 * 1024),
    # Metadata above the first limit may be refused, above the second it always is.
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
)


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """Where everything comes from. ``bundles`` has the own trust domain and every other that is accepted.

    Those in ``may_be_absent`` may have no bundle at the start, or lose it: then nobody of theirs gets in.
    """

    trust_domain: str
    identity: Origin[ServerIdentity]
    bundles: Mapping[str, Origin[TrustBundle | None]]
    may_be_absent: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _InForce:
    identity: ServerIdentity
    bundles: Bundles
    ended: bool
    configuration: grpc.ServerCertificateConfiguration

    @classmethod
    def of(cls, identity: ServerIdentity, bundles: Bundles, now: datetime) -> _InForce:
        ended = identity.ended(now)
        # Past its end no handshake shall succeed, not even with a client whose clock is behind: the only root
        # is then a certificate that signed nobody, and has itself expired.
        roots = identity.chain_pem if ended else bundles.pem
        pair = (identity.key_pem, identity.chain_pem)
        return cls(identity, bundles, ended, grpc.ssl_server_certificate_configuration([pair], roots))


class ServerTls:
    """The door's TLS material, as its origins say now or last said well.

    Construction raises :class:`InvalidInput` (CONFIG_INVALID): a broker without good material does not
    serve. Afterwards nothing raises: own pair and each bundle are kept separately until their origin is
    good again, so that one trust domain's bad bundle delays neither another's removed root nor the
    broker's own renewal. ``problems`` tells what is being kept, for readyz and metrics.

    The daemon calls :meth:`refresh` each second and whenever an origin says that it has changed; requests on
    open connections are judged by ``bundles``, new handshakes by the same from then on. Safe from any thread.
    """

    def __init__(self, material: TlsMaterial, clock: Clock, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._own = material.trust_domain
        self._clock = clock
        self._identity = LastGood(material.identity, monotonic)
        self._bundles: dict[str, LastGood[TrustBundle | None]] = {
            name: LastGood(origin, monotonic, _nobody if name in material.may_be_absent else None)
            for name, origin in material.bundles.items()
        }
        self._yielded: Mapping[str, BrokerError] = {}
        self._lock = threading.Lock()
        self._in_force = _InForce.of(self._identity.value, self._composed({}), earliest(clock))

    @property
    def bundles(self) -> Bundles:
        """The bundles to validate peers against, now."""
        return self._in_force.bundles

    @property
    def identity(self) -> ServerIdentity:
        """The broker's own SVID in force; past its ``not_after`` nobody connects any more."""
        return self._in_force.identity

    @property
    def problems(self) -> tuple[BrokerError, ...]:
        """What is wrong with the material while the last good stays in force; empty when all is well."""
        kept = (self._identity.error, *(self._problem(name) for name in self._bundles))
        return tuple(error for error in (*kept, *self._yielded.values()) if error)

    def refresh(self) -> None:
        """Take in what changed. Never raises; ``problems`` has what could not be taken."""
        with self._lock:
            changed = [self._identity.refresh(), *(each.refresh() for each in self._bundles.values())]
            now = earliest(self._clock)
            if any(changed) or self._identity.value.ended(now) is not self._in_force.ended:
                self._in_force = _InForce.of(self._identity.value, self._composed(self._in_force.bundles), now)

    def _composed(self, before: Mapping[str, TrustBundle]) -> Bundles:
        offered = {name: each.value for name, each in self._bundles.items() if each.value is not None}
        bundles, self._yielded = compose(self._own, offered, before)
        return bundles

    def _problem(self, name: str) -> BrokerError | None:
        kept = self._bundles[name]
        if kept.value is not None or kept.error is not None:
            return kept.error
        return NotReady(
            Reason.SVID_TRUST_DOMAIN_UNKNOWN,
            f"There is no trust bundle for {name}, so nobody of it gets in.",
            hint="It comes from the Workload API once the broker's entry federates with it.",
            metadata={"trustDomain": name},
        )

    def credentials(self, *, client_certificate: bool = True) -> grpc.ServerCredentials:
        """Credentials for one port, new material from the next handshake on.

        ``client_certificate`` False: none is asked for, and only the server proves who it is (the people's port).
        """
        initial, fetch = self.delivery()
        # The stubs forget that the fetcher may return None, which grpc documents as "unchanged".
        return grpc.dynamic_ssl_server_credentials(
            initial,
            fetch,  # type: ignore[arg-type]
            require_client_authentication=client_certificate,
        )

    def delivery(
        self,
    ) -> tuple[grpc.ServerCertificateConfiguration, Callable[[], grpc.ServerCertificateConfiguration | None]]:
        """What one port starts with, and the question it asks at each handshake: None means "as before".

        The question runs in a thread of gRPC's core, which holds up the handshake for it, and were it to
        raise, the handshake would go on with the old material and without a word. So it only compares what is
        in memory. Not answering with what is already there matters too: gRPC would build its TLS context anew.
        """
        initial = delivered = self._in_force.configuration

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            nonlocal delivered
            current = self._in_force.configuration
            if current is delivered:
                return None
            delivered = current
            return current

        return initial, fetch


def _nobody() -> None:
    """No bundle: nobody of that trust domain gets in."""


def peer_from_auth_context(
    auth_context: Mapping[str, Iterable[bytes]], bundles: Bundles, cache: PeerCache, now: datetime
) -> Peer:
    """Who is at the other end of this connection, for this request.

    ``auth_context`` is ``ServicerContext.auth_context()``. Only the certificates in it are believed;
    gRPC's own reading of the id, where it offers one, must agree with ours, since two readers of the
    same certificate who differ mean that one of them was deceived.

    Raises :class:`Unauthenticated` with one of the ``SVID_*`` reasons.
    """
    leaf = _only(auth_context, "x509_pem_cert")
    peer = cache.validate(leaf, _only(auth_context, "x509_pem_cert_chain"), bundles, now)
    read_by_grpc = auth_context.get("peer_spiffe_id")
    if read_by_grpc is not None and list(read_by_grpc) != [str(peer.spiffe_id).encode()]:
        raise Unauthenticated(
            Reason.SVID_MALFORMED,
            f"The TLS library and the broker read different ids in one certificate; the broker reads {peer.spiffe_id}.",
            hint="Ask the trust domain's authority for a fresh SVID, and report the refused one.",
            metadata={"spiffeId": str(peer.spiffe_id), "fingerprint": peer.fingerprint},
        )
    return peer


def _only(auth_context: Mapping[str, Iterable[bytes]], name: str) -> bytes:
    values = list(auth_context.get(name, ()))
    if len(values) > 1:
        raise Unauthenticated(
            Reason.SVID_MALFORMED,
            f"The connection has {len(values)} values of {name}; at most one was expected.",
            hint="Connect directly to the broker, with one client certificate.",
        )
    return values[0] if values else b""
