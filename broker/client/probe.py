"""What TLS at an address looks like from here: one connection, made to be explained.

gRPC says of every failed handshake the same word, UNAVAILABLE. This connects once with the standard
library and notes how far it got. In TLS 1.3 the client's certificate is judged after the client is
done, so "refused" shows as a connection that closes without a byte (RFC 8446, 4.4.2.4 and D.1);
an HTTP/2 server that accepted us speaks first (RFC 9113, 3.4).
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from broker.client.svid import Material
from broker.client.target import Target
from broker.identity.certificate import CertificateUnreadable, Facts, read_certificates

TIMEOUT_SECONDS = 3.0

# X509_V_ERR_HOSTNAME_MISMATCH, OpenSSL's x509_vfy.h; with an address for a name, the other.
_NAME_MISMATCH = (62, 64)
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


class Stage(StrEnum):
    """How far a connection got: each names the first thing that failed."""

    TCP = "TCP"  # nobody listens there, or the way is blocked
    TLS = "TLS"  # what listens does not speak TLS as we do
    SERVER_UNTRUSTED = "SERVER_UNTRUSTED"  # its certificate does not lead to our bundle, or is out of date
    SERVER_NAME = "SERVER_NAME"  # trusted, but not the name we demand
    CLIENT_REFUSED = "CLIENT_REFUSED"  # it is the broker, and it closed when it saw our certificate
    ACCEPTED = "ACCEPTED"


@dataclass(frozen=True, slots=True)
class Probe:
    """How far it got, why not further, and what the server showed."""

    stage: Stage
    detail: str = ""
    server: Facts | None = None
    silent: bool = False  # connected, and not answered in time

    @property
    def server_names(self) -> tuple[str, ...]:
        """The DNS names of the server's certificate; empty if it showed none."""
        return self.server.dns_names if self.server else ()


def probe(target: Target, material: Material, timeout: float = TIMEOUT_SECONDS) -> Probe:
    """Connect once to ``target`` with ``material``; blocks for ``timeout`` seconds per step, raises nothing."""
    if (down := _nobody_there(target, timeout)) is not None:
        return down
    return _handshake(target, material.bundle.pem, material, timeout)


def probe_server(target: Target, roots_pem: bytes, timeout: float = TIMEOUT_SECONDS) -> Probe:
    """The same without a certificate of ours, where the server asks for none (the people's door)."""
    if (down := _nobody_there(target, timeout)) is not None:
        return down
    return _handshake(target, roots_pem, None, timeout)


def _nobody_there(target: Target, timeout: float) -> Probe | None:
    try:
        with socket.create_connection((target.host, target.port), timeout=timeout):
            return None
    except OSError as error:
        return Probe(Stage.TCP, error.strerror or str(error))


def _handshake(target: Target, roots_pem: bytes, client: Material | None, timeout: float) -> Probe:
    server = _shown_certificate(target, timeout)
    context = ssl.create_default_context(cadata=roots_pem.decode("ascii"))
    # What Python 3.13 asks for beyond that (a key identifier of the issuer, say), gRPC does not, whose way this is.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["h2"])
    try:
        if client is not None:
            with _client_certificate(client) as path:
                context.load_cert_chain(path)
        with (
            socket.create_connection((target.host, target.port), timeout=timeout) as connection,
            context.wrap_socket(connection, server_hostname=target.server_name) as tls,
        ):
            tls.sendall(_HTTP2_PREFACE)
            answered = bool(tls.recv(1))
    except ssl.SSLCertVerificationError as error:
        stage = Stage.SERVER_NAME if error.verify_code in _NAME_MISMATCH else Stage.SERVER_UNTRUSTED
        return Probe(stage, error.verify_message, server)
    except (ConnectionError, ssl.SSLError) as error:
        # Before TLS 1.3, or with an alert, the refusal comes as an error; without a certificate it is no TLS server.
        detail = getattr(error, "reason", None) or error.strerror or str(error)
        return Probe(Stage.CLIENT_REFUSED if server else Stage.TLS, str(detail), server)
    except TimeoutError:
        return Probe(Stage.TLS, f"no answer within {timeout:g} s", server, silent=True)
    except OSError as error:
        return Probe(Stage.TLS, str(error), server)
    return Probe(Stage.ACCEPTED if answered else Stage.CLIENT_REFUSED, "", server)


def _shown_certificate(target: Target, timeout: float) -> Facts | None:
    """The certificate the server shows to anybody; believed for nothing but an error message."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((target.host, target.port), timeout=timeout) as connection,
            context.wrap_socket(connection, server_hostname=target.server_name) as tls,
        ):
            der = tls.getpeercert(binary_form=True)
        return read_certificates(der, at_most=1)[0] if der else None
    except (OSError, ValueError, CertificateUnreadable):
        return None


@contextlib.contextmanager
def _client_certificate(material: Material) -> Iterator[str]:
    """A path ``ssl`` can read the pair from: in memory where there is such a file, else 0600 for a moment."""
    pair = material.chain_pem + material.key_pem
    if not hasattr(os, "memfd_create"):
        with tempfile.NamedTemporaryFile() as file:
            file.write(pair)
            file.flush()
            yield file.name
        return
    with os.fdopen(os.memfd_create("svid"), "wb", buffering=0) as memory:
        memory.write(pair)
        yield f"/proc/self/fd/{memory.fileno()}"
