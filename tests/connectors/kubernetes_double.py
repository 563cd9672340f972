"""A double of the Kubernetes API, as far as OpenBao's engine and the holder of a token call it.

It speaks what the real one speaks: HTTPS with an authority of its own, Kubernetes' protobuf in and JSON out, service
accounts, role bindings, TokenRequest with its shortest time, and 401 for every token whose service account is gone or
whose time is over. It knows no roles, and collects no garbage: the engine must delete both itself.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
import secrets
import ssl
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_ACCOUNTS = re.compile(r"/api/v1/namespaces/([^/]+)/serviceaccounts(?:/([^/]+))?(/token)?\Z")
_BINDINGS = re.compile(r"/apis/rbac\.authorization\.k8s\.io/v1/namespaces/([^/]+)/rolebindings(?:/([^/]+))?\Z")
_WHO = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
_SHORTEST = 600


@dataclass
class Cluster:
    """What there is: service accounts and bindings by (namespace, name), each with its uid, and tokens."""

    url: str = ""
    ca: str = ""
    root_token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    accounts: dict[tuple[str, str], str] = field(default_factory=dict)
    bindings: dict[tuple[str, str], str] = field(default_factory=dict)
    tokens: dict[str, tuple[tuple[str, str], str, float]] = field(default_factory=dict)

    def knows(self, token: str) -> bool:
        """Whether the token's own account still lives, the one that it was made for, and its time is not over."""
        account, uid, ends = self.tokens.get(token, (("", ""), "", 0.0))
        return self.accounts.get(account) == uid and datetime.now(UTC).timestamp() < ends


@contextmanager
def kubernetes_double() -> Iterator[Cluster]:
    """A running one."""
    cluster = Cluster()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"cluster": cluster}))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as directory:
        cluster.ca, chain = _certificates(Path(directory))
        context.load_cert_chain(chain)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    cluster.url = f"https://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield cluster
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    cluster: ClassVar[Cluster]

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """Nothing of it."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.path == _WHO:
            known = self.cluster.knows(bearer)
            self._send(201 if known else 401, {"kind": "SelfSubjectReview" if known else "Status"})
        elif bearer != self.cluster.root_token:
            self._send(401, _status(401))
        elif found := _ACCOUNTS.match(self.path):
            self._object(self.cluster.accounts, "v1", "ServiceAccount", (found[1], found[2]), found[3], body)
        elif found := _BINDINGS.match(self.path):
            kind = ("rbac.authorization.k8s.io/v1", "RoleBinding")
            self._object(self.cluster.bindings, *kind, (found[1], found[2]), None, body)
        else:
            self._send(404, _status(404))

    def _object(
        self,
        there: dict[tuple[str, str], str],
        version: str,
        kind: str,
        key: tuple[str, str],
        sub: str | None,
        body: bytes,
    ) -> None:
        if self.command == "DELETE":
            self._send(200 if there.pop(key, None) else 404, _status(200))
        elif sub is not None:
            self._token(key, body)
        else:
            key = (key[0], _text(_message(_sent(body), 1), 1))
            there[key] = secrets.token_hex(8)
            meta = {"name": key[1], "namespace": key[0], "uid": there[key]}
            self._send(201, {"apiVersion": version, "kind": kind, "metadata": meta})

    def _token(self, key: tuple[str, str], body: bytes) -> None:
        seconds = _fields(_message(_sent(body), 2)).get(4, 0)
        if key not in self.cluster.accounts:
            self._send(404, _status(404))
        elif not isinstance(seconds, int) or seconds < _SHORTEST:  # "may not specify a duration less than 10 minutes"
            self._send(422, _status(422))
        else:
            ends = int(datetime.now(UTC).timestamp()) + seconds
            claims = {"sub": f"system:serviceaccount:{key[0]}:{key[1]}", "iat": ends - seconds, "exp": ends}
            parts = [_base64(json.dumps(each).encode()) for each in ({"alg": "RS256"}, claims)]
            token = ".".join([*parts, _base64(secrets.token_bytes(32))])
            self.cluster.tokens[token] = (key, self.cluster.accounts[key], ends)
            told = {"token": token, "expirationTimestamp": datetime.fromtimestamp(ends, UTC).isoformat()}
            head = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {}}
            self._send(201, {**head, "spec": {"audiences": [], "expirationSeconds": seconds}, "status": told})

    def _send(self, status: int, answer: Mapping[str, Any]) -> None:
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def _status(code: int) -> dict[str, Any]:
    said = "Success" if code < 400 else "Failure"
    return {"apiVersion": "v1", "kind": "Status", "status": said, "code": code, "message": f"status {code}"}


# --------------------------------------------------------------------------- protobuf, as far as it is sent


def _sent(body: bytes) -> bytes:
    """The object inside ``k8s\\0`` and the envelope around it (runtime.Unknown: 2 is the raw object)."""
    assert body.startswith(b"k8s\0"), body[:40]
    return _message(body[4:], 2)


def _fields(message: bytes) -> dict[int, int | bytes]:
    """Each field's last value: numbers and bytes, which is all that is sent here."""
    found: dict[int, int | bytes] = {}
    at = 0
    while at < len(message):
        tag, at = _number(message, at)
        value, at = _number(message, at)
        if tag & 7 == 2:
            found[tag >> 3], at = message[at : at + value], at + value
        else:
            assert tag & 7 == 0, tag
            found[tag >> 3] = value
    return found


def _number(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (message[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if message[at - 1] < 0x80:
            return value, at


def _message(message: bytes, number: int) -> bytes:
    value = _fields(message).get(number, b"")
    assert isinstance(value, bytes)
    return value


def _text(message: bytes, number: int) -> str:
    return _message(message, number).decode()


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


# --------------------------------------------------------------------------- its authority


def _certificates(directory: Path) -> tuple[str, Path]:
    """The authority's certificate, PEM, and the file with the server's chain and key."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes double")])
    authority = _unsigned(ca_name, ca_name, ca_key).add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
    mine = _unsigned(x509.Name([]), ca_name, key)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    mine = mine.add_extension(x509.SubjectAlternativeName([address]), critical=True)
    pem = serialization.Encoding.PEM
    ca = authority.sign(ca_key, hashes.SHA256()).public_bytes(pem).decode()
    path = directory / "server.pem"
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(mine.sign(ca_key, hashes.SHA256()).public_bytes(pem) + private)
    return ca, path


def _unsigned(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    times = made.not_valid_before(now - timedelta(minutes=5)).not_valid_after(now + timedelta(days=1))
    return times.serial_number(x509.random_serial_number())
