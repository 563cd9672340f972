"""Where a program begins: ``broker.client.connect()``.

Belongs here: arguments, the environment's defaults for them, and putting the parts together. Nothing
is contacted before the first call.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from broker.client.admin import ADMIN_ADDRESS, AdminClient, Believed
from broker.client.channel import Connection
from broker.client.client import AsyncClient
from broker.client.svid import FileSource, Material, SvidSource
from broker.client.target import DEFAULT_SERVER_NAME, Target, broker_trust_domain
from broker.client.tokens import TokenFile, TokenSource, no_token
from broker.clock import SystemClock, SystemRng
from broker.errors import InvalidInput, Reason, Unauthenticated

ADDRESS = "BROKER_ADDRESS"
SERVER_NAME = "BROKER_SERVER_NAME"
TRUST_DOMAIN = "BROKER_TRUST_DOMAIN"
WORKLOAD_API = "SPIFFE_ENDPOINT_SOCKET"
AUDIENCE = "BROKER_AUDIENCE"


def connect(
    address: str | None = None,
    server_name: str | None = None,
    workload_api: str | None = None,
    *,
    trust_domain: str | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    bundle: Path | None = None,
    audience: str | None = None,
    token_file: Path | None = None,
    seal: bool | None = None,
) -> AsyncClient:
    """A client of the broker at ``address``, as the workload this process is.

    Args:
        address: ``host:port``; default: ``$BROKER_ADDRESS``.
        server_name: the DNS name its certificate must have; default: ``$BROKER_SERVER_NAME``, or ``brokerd``.
        workload_api: the SPIFFE Workload API, ``unix:///path``; default: ``$SPIFFE_ENDPOINT_SOCKET``.
        trust_domain: the broker's, as in ``prod.example.org``. Its certificate is verified against the bundle of
            this trust domain and no other; default: ``$BROKER_TRUST_DOMAIN``, or the one our own SVID names.
        certificate, key, bundle: PEM files, all three, instead of a Workload API; for CI. ``bundle`` is that of
            the broker's trust domain. With ``trust_domain``, it alone may be given beside a Workload API.
        audience: of the JWT-SVIDs the broker accepts through a proxy, where one is at ``address``; default:
            ``$BROKER_AUDIENCE``. Without it, the broker itself is there and this is mTLS from end to end.
        token_file: a file with such a JWT-SVID, kept fresh by somebody, instead of the Workload API.
        seal: whether credentials come sealed, for this process alone to open; default: through a proxy.

    Raises :class:`InvalidInput` (CONFIG_INVALID) or :class:`Unauthenticated` (SVID_MISSING) where that
    is not enough to know whom to connect to, and as whom.
    """
    target = Target.parse(
        os.environ.get(ADDRESS, "") if address is None else address,
        os.environ.get(SERVER_NAME) or DEFAULT_SERVER_NAME if server_name is None else server_name,
    )
    rng, now = SystemRng(), SystemClock().now
    source = svid_source(
        workload_api,
        trust_domain=os.environ.get(TRUST_DOMAIN, "") if trust_domain is None else trust_domain,
        certificate=certificate,
        key=key,
        bundle=bundle,
    )
    tokens = token_source(os.environ.get(AUDIENCE, "") if audience is None else audience, workload_api, token_file, now)
    seals = tokens is not None if seal is None else seal
    return AsyncClient(Connection(source, target, now, tokens), rng.id, rng.fraction, seals=seals)


def connect_admin(
    address: str,
    caller: TokenSource | Material,
    believed: Believed,
    server_name: str = DEFAULT_SERVER_NAME,
) -> AdminClient:
    """A client of the people's door at ``address`` (``host:port``), as ``caller``.

    A person is named by a token with each call; operators' automation by its SVID, at brokerd's ``listen.automation``.
    Nothing is contacted before the first call.
    """
    if not address:
        raise InvalidInput(
            Reason.CONFIG_INVALID,
            "There is no address of the people's door.",
            hint=f"Set {ADMIN_ADDRESS} (or --admin-address) to host:port of brokerd's listen.admin.",
        )
    rng = SystemRng()
    return AdminClient(Target.parse(address, server_name), caller, believed, rng.id, rng.fraction)


def token_source(
    audience: str, workload_api: str | None, token_file: Path | None, now: Callable[[], datetime]
) -> TokenSource | None:
    """Where our JWT-SVIDs come from; None where no proxy is in between. Arguments as for :func:`connect`."""
    if token_file is not None:
        return TokenFile(token_file)
    if not audience:
        return None
    socket = os.environ.get(WORKLOAD_API, "") if workload_api is None else workload_api
    if not socket:
        raise no_token(f"an audience is given, and neither a token file nor {WORKLOAD_API}")
    from broker.client.workload_api import WorkloadApiTokens

    return WorkloadApiTokens(f"unix://{socket}" if socket.startswith("/") else socket, audience, now)


def svid_source(
    workload_api: str | None = None,
    *,
    trust_domain: str = "",
    certificate: Path | None = None,
    key: Path | None = None,
    bundle: Path | None = None,
) -> SvidSource:
    """Where our SVID, and the bundle we believe the broker by, come from; arguments as for :func:`connect`."""
    broker_trust_domain(trust_domain)
    files = [path for path in (certificate, key, bundle) if path is not None]
    if len(files) == 3 and certificate and key and bundle:
        return FileSource(certificate, key, bundle, trust_domain)
    # A bundle alone is ours to use only where somebody said whose it is.
    if files and not (files == [bundle] and trust_domain):
        raise InvalidInput(
            Reason.CONFIG_INVALID,
            f"Of certificate, key and bundle, {len(files)} of 3 are given.",
            hint="Give all three files, or none and a SPIFFE Workload API; or, beside a Workload API, the bundle of "
            "the broker's trust domain, and that trust domain (BROKER_TRUST_DOMAIN, --trust-domain).",
        )
    socket = os.environ.get(WORKLOAD_API, "") if workload_api is None else workload_api
    if not socket:
        raise Unauthenticated(
            Reason.SVID_MISSING,
            "There is no SPIFFE Workload API to get an SVID from.",
            hint=f"Set {WORKLOAD_API} (or --workload-api) to the SPIFFE agent's socket, unix:///path.",
        )
    # py-spiffe is a third of the time it takes to start; who has files does not wait for it.
    from broker.client.workload_api import WorkloadApiSource

    endpoint = f"unix://{socket}" if socket.startswith("/") else socket
    return WorkloadApiSource(endpoint, trust_domain=trust_domain, bundle=bundle)
