"""A SPIFFE Workload API that says what a test wants, good or bad, to whoever listens.

The development one (``broker/dev/workload_api.py``) is for rotation as it should be; this one is for everything
else: federation, empty and broken bundles, several SVIDs, an answer that is an error.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from spiffe._proto import workload_pb2 as messages
from spiffe._proto import workload_pb2_grpc

from tests.forge import Forged


def svid(forged: Forged, *roots: Forged) -> messages.X509SVID:
    """One SVID of an answer, with the bundle of its trust domain."""
    return messages.X509SVID(
        spiffe_id=forged.certificate.subject.rfc4514_string(),  # py-spiffe reads the certificate
        x509_svid=forged.der + b"".join(each.public_bytes(Encoding.DER) for each in forged.chain),
        x509_svid_key=forged.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        bundle=der(*roots),
    )


def der(*roots: Forged) -> bytes:
    """A bundle as the Workload API sends it."""
    return b"".join(root.der for root in roots)


def answer(*svids: messages.X509SVID, federated: Mapping[str, bytes] | None = None) -> messages.X509SVIDResponse:
    """One whole answer."""
    return messages.X509SVIDResponse(
        svids=svids, federated_bundles={f"spiffe://{name}": data for name, data in (federated or {}).items()}
    )


class ScriptedWorkloadApi(workload_pb2_grpc.SpiffeWorkloadAPIServicer):
    """Serves ``says`` on a socket, and again whenever it changes. A status code instead of an answer is an error."""

    def __init__(self, socket: Path, says: messages.X509SVIDResponse | grpc.StatusCode) -> None:
        self.socket = socket
        self.asked = 0
        self._says = says
        self._turn = 0
        self._changed = threading.Condition()
        self._server: grpc.Server | None = None

    @property
    def endpoint(self) -> str:
        return f"unix://{self.socket}"

    def say(self, says: messages.X509SVIDResponse | grpc.StatusCode) -> None:
        with self._changed:
            self._says, self._turn = says, self._turn + 1
            self._changed.notify_all()

    def start(self) -> ScriptedWorkloadApi:
        self._server = grpc.server(ThreadPoolExecutor(16))
        workload_pb2_grpc.add_SpiffeWorkloadAPIServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self._server.add_insecure_port(f"unix:{self.socket}")
        self._server.start()
        return self

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(None).wait()
            with self._changed:
                self._turn += 1
                self._changed.notify_all()
            self.socket.unlink(missing_ok=True)
            self._server = None

    def FetchX509SVID(self, request: Any, context: grpc.ServicerContext) -> Iterator[messages.X509SVIDResponse]:
        self.asked += 1
        seen = -1
        while context.is_active():
            with self._changed:
                if self._turn == seen:
                    self._changed.wait(0.2)
                    continue
                seen, says = self._turn, self._says
            if isinstance(says, grpc.StatusCode):
                context.abort(says, "as the test wants it")
            yield says
