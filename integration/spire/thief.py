"""Whoever has taken over a SPIRE server: signs whatever it likes, and serves with it.

Belongs here: what no honest operator could do with SPIRE's own commands.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc

from broker.clock import SystemClock
from broker.dev.files import private_directory, write_private
from broker.dev.loopback import LOOPBACK
from integration.spire.domain import Spire
from tests.forge import Forged, forge


def signed_by(spire: Spire, spiffe_id: str, *dns: str) -> Forged:
    """An SVID, good in every respect, with the key of this domain's authority, whatever domain it names."""
    issuer = Forged(*spire.server.stolen_authority())
    return forge(uris=[spiffe_id], dns=dns, issuer=issuer, at=SystemClock().now())


def options(forged: Forged, roots: str, directory: Path) -> list[str]:
    """The options with which ``broker`` shows this SVID, and believes these roots."""
    private_directory(directory)
    files = {"certificate": forged.pem, "key": forged.key_pem, "bundle": roots.encode()}
    for name, pem in files.items():
        write_private(directory / f"{name}.pem", pem.decode())
    return [word for name in files for word in (f"--{name}", str(directory / f"{name}.pem"))]


@contextmanager
def serving(forged: Forged) -> Iterator[str]:
    """A gRPC server that shows this SVID and knows no call; its address."""
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        credentials = grpc.ssl_server_credentials([(forged.key_pem, forged.pem)])
        port = server.add_secure_port(f"{LOOPBACK}:0", credentials)
        server.start()
        try:
            yield f"{LOOPBACK}:{port}"
        finally:
            server.stop(None).wait()
