"""A TLS 1.3 client that sends whatever it is told to as its certificate: what no TLS library would load or show.

Belongs here: just enough of RFC 8446 to come to the point where a server judges the client's certificate. One cipher
suite, one group, no resumption; the server's own certificate is believed unseen, because it is not the one under
test. Behind that, just enough of HTTP/2 to make one call. Everything blocks, each step for ``TIMEOUT_SECONDS`` at most.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.forge import Key
from tests.patience import PATIENCE

TIMEOUT_SECONDS = PATIENCE
ACCEPTED = "accepted"
CLOSED = "closed"

_ALERT, _HANDSHAKE, _DATA, _CHANGE_CIPHER_SPEC = 21, 22, 23, 20
_CLIENT_HELLO, _SERVER_HELLO, _CERTIFICATE, _CERTIFICATE_VERIFY, _FINISHED = 1, 2, 11, 15, 20
_SUITE, _TLS_1_3, _X25519 = b"\x13\x01", b"\x03\x04", b"\x00\x1d"
_RECORD = 2**14
_BODY, _HEADERS = 0, 1
_END_STREAM, _END_HEADERS = 1, 4
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


def show(port: int, certificates: Sequence[bytes], key: Key, *, call: str = "") -> str:
    """Show ``certificates`` (any bytes, leaf first) on loopback and sign with ``key``: what the server makes of it.

    :data:`ACCEPTED` if it then speaks HTTP/2; else ``alert N`` (RFC 8446, 6), or :data:`CLOSED` if it hung up. With
    ``call``, the path of a gRPC method, an empty message is sent there and the end of the answer waited for; what
    is in it must be seen on the other side.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS) as connection:
        wire = _Wire(connection)
        try:
            _handshake(wire, certificates, key)
            _converse(wire, call)
        except _Ended as ended:
            return str(ended)
        except ConnectionError:
            # It hung up while we were still talking; what it had said before is lost with the connection.
            return CLOSED
    return ACCEPTED


class _Ended(Exception):
    """The server said no."""


@dataclass
class _Secret:
    """One direction's traffic key (RFC 8446, 7.3)."""

    secret: bytes
    number: int = 0

    def nonce(self) -> bytes:
        iv = int.from_bytes(_expand(self.secret, b"iv", b"", 12), "big")
        self.number += 1
        return (iv ^ (self.number - 1)).to_bytes(12, "big")

    @property
    def cipher(self) -> AESGCM:
        return AESGCM(_expand(self.secret, b"key", b"", 16))

    def finished(self, transcript: bytes) -> bytes:
        return hmac.digest(_expand(self.secret, b"finished", b"", 32), transcript, "sha256")


@dataclass
class _Wire:
    """Records and handshake messages over a socket, with the transcript of the latter."""

    connection: socket.socket
    reading: _Secret | None = None
    writing: _Secret | None = None
    transcript: bytes = b""
    _buffer: bytes = field(default=b"", init=False)

    @property
    def hash(self) -> bytes:
        return hashlib.sha256(self.transcript).digest()

    def send(self, kind: int, data: bytes) -> None:
        for start in range(0, len(data), _RECORD):
            part = data[start : start + _RECORD]
            if self.writing:
                head = bytes([_DATA, 3, 3]) + (len(part) + 17).to_bytes(2, "big")
                body = self.writing.cipher.encrypt(self.writing.nonce(), part + bytes([kind]), head)
            else:
                head, body = bytes([kind, 3, 1]) + len(part).to_bytes(2, "big"), part
            self.connection.sendall(head + body)

    def tell(self, kind: int, body: bytes) -> None:
        message = bytes([kind]) + _sized(3, body)
        self.transcript += message
        self.send(_HANDSHAKE, message)

    def record(self) -> tuple[int, bytes]:
        while True:
            head = self._exactly(5)
            body = self._exactly(int.from_bytes(head[3:], "big"))
            kind = head[0]
            if kind == _CHANGE_CIPHER_SPEC:
                continue
            if self.reading and kind == _DATA:
                plain = self.reading.cipher.decrypt(self.reading.nonce(), body, head).rstrip(b"\x00")
                kind, body = plain[-1], plain[:-1]
            if kind == _ALERT:
                raise _Ended(f"alert {body[1]}")
            return kind, body

    def message(self) -> tuple[int, bytes]:
        while len(self._buffer) < 4 or len(self._buffer) < 4 + int.from_bytes(self._buffer[1:4], "big"):
            kind, body = self.record()
            assert kind == _HANDSHAKE, kind
            self._buffer += body
        end = 4 + int.from_bytes(self._buffer[1:4], "big")
        message, self._buffer = self._buffer[:end], self._buffer[end:]
        self.transcript += message
        return message[0], message[4:]

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.connection.recv(size - len(data))
            if not part:
                raise _Ended(CLOSED)
            data += part
        return data


def _handshake(wire: _Wire, certificates: Sequence[bytes], key: Key) -> None:
    share = X25519PrivateKey.generate()
    wire.tell(_CLIENT_HELLO, _hello(share))
    kind, hello = wire.message()
    assert kind == _SERVER_HELLO
    theirs = next(value for number, value in _extensions(hello) if number == 51)
    shared = share.exchange(X25519PublicKey.from_public_bytes(theirs[4:]))
    early = _extract(b"", bytes(32))
    secret = _extract(_derive(early, b"derived", b""), shared)
    ours = _Secret(_expand(secret, b"c hs traffic", wire.hash, 32))
    wire.reading = _Secret(_expand(secret, b"s hs traffic", wire.hash, 32))
    while wire.message()[0] != _FINISHED:
        pass
    master = _extract(_derive(secret, b"derived", b""), bytes(32))
    # From its Finished on, a server writes with these (RFC 8446, 2); a verdict on us comes under them.
    wire.reading = _Secret(_expand(master, b"s ap traffic", wire.hash, 32))
    after = _Secret(_expand(master, b"c ap traffic", wire.hash, 32))
    wire.writing = ours
    listed = b"".join(_sized(3, each) + b"\x00\x00" for each in certificates)
    wire.tell(_CERTIFICATE, b"\x00" + _sized(3, listed))
    if certificates:
        wire.tell(_CERTIFICATE_VERIFY, _signature(key, wire.hash))
    wire.tell(_FINISHED, ours.finished(wire.hash))
    wire.writing = after


def _converse(wire: _Wire, call: str) -> None:
    """HTTP/2 (RFC 9113) until the server has spoken; with ``call``, until it has answered that."""
    wire.send(_DATA, _HTTP2_PREFACE + (_request(call) if call else b""))
    told = b""
    while True:
        kind, data = wire.record()
        told += data if kind == _DATA else b""
        if told and not call:
            return
        while len(told) >= 9 and len(told) >= 9 + int.from_bytes(told[:3], "big"):
            frame, told = told[: 9 + int.from_bytes(told[:3], "big")], told[9 + int.from_bytes(told[:3], "big") :]
            if frame[3] == _HEADERS and frame[4] & _END_STREAM:
                return


def _request(path: str) -> bytes:
    fields = {
        ":method": "POST",
        ":scheme": "https",
        ":path": path,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    # Literal, not indexed, not compressed (RFC 7541, 6.2.2).
    head = b"".join(b"\x00" + _sized(1, name.encode()) + _sized(1, text.encode()) for name, text in fields.items())
    message = bytes(5)  # gRPC: not compressed, no bytes
    return _frame(_HEADERS, _END_HEADERS, head) + _frame(_BODY, _END_STREAM, message)


def _frame(kind: int, flags: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags, 0, 0, 0, 1]) + payload


def _hello(share: X25519PrivateKey) -> bytes:
    public = share.public_key().public_bytes_raw()
    algorithms = bytes.fromhex("0403 0503 0603 0804 0805 0806 0807 0401".replace(" ", ""))
    extensions = {
        43: _sized(1, _TLS_1_3),
        10: _sized(2, _X25519),
        13: _sized(2, algorithms),
        51: _sized(2, _X25519 + _sized(2, public)),
        16: _sized(2, _sized(1, b"h2")),
    }
    listed = b"".join(number.to_bytes(2, "big") + _sized(2, value) for number, value in extensions.items())
    return b"\x03\x03" + os.urandom(32) + b"\x00" + _sized(2, _SUITE) + b"\x01\x00" + _sized(2, listed)


def _extensions(hello: bytes) -> Iterator[tuple[int, bytes]]:
    at = 34 + 1 + hello[34] + 3 + 2  # version, random, session, suite and compression, size
    while at < len(hello):
        size = int.from_bytes(hello[at + 2 : at + 4], "big")
        yield int.from_bytes(hello[at : at + 2], "big"), hello[at + 4 : at + 4 + size]
        at += 4 + size


def _signature(key: Key, transcript: bytes) -> bytes:
    """CertificateVerify (RFC 8446, 4.4.3)."""
    content = b" " * 64 + b"TLS 1.3, client CertificateVerify\x00" + transcript
    digest = hashes.SHA256()
    match key:
        case ec.EllipticCurvePrivateKey():
            scheme, signed = b"\x04\x03", key.sign(content, ec.ECDSA(digest))
        case rsa.RSAPrivateKey():
            pss = padding.PSS(padding.MGF1(digest), digest.digest_size)
            scheme, signed = b"\x08\x04", key.sign(content, pss, digest)
        case ed25519.Ed25519PrivateKey():
            scheme, signed = b"\x08\x07", key.sign(content)
    return scheme + _sized(2, signed)


def _extract(salt: bytes, secret: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), secret, "sha256")


def _derive(secret: bytes, label: bytes, messages: bytes) -> bytes:
    return _expand(secret, label, hashlib.sha256(messages).digest(), 32)


def _expand(secret: bytes, label: bytes, context: bytes, size: int) -> bytes:
    """HKDF-Expand-Label (RFC 8446, 7.1), for at most one block."""
    info = size.to_bytes(2, "big") + _sized(1, b"tls13 " + label) + _sized(1, context)
    return hmac.digest(secret, info + b"\x01", "sha256")[:size]


def _sized(width: int, data: bytes) -> bytes:
    return len(data).to_bytes(width, "big") + data
