"""MinIO's admin API as anybody with a key may call it: an agent with its session, or the broker's own user."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

import requests
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker.dev.minio import REGION
from broker.lease.credential import AwsSession
from tests.patience import PATIENCE

# madmin-go's encrypt.go: which key derivation and cipher, and the cost of the former.
_PBKDF2_AES_GCM, _PBKDF2_COST = b"\x02", 8192


@dataclass(frozen=True)
class Key:
    """Whose key a call is signed with."""

    access_key: str
    secret: str
    token: str | None = None

    @classmethod
    def of(cls, session: AwsSession) -> Key:
        return cls(session.access_key_id, session.secret_access_key.reveal(), session.session_token.reveal())


def call(
    endpoint: str, key: Key, method: str, name: str, query: Mapping[str, str] | None = None, body: bytes = b""
) -> tuple[int, str]:
    """HTTP status, and the code of the refusal."""
    request = AWSRequest(method, f"{endpoint}/minio/admin/v3/{name}", params=dict(query or {}), data=body)
    S3SigV4Auth(Credentials(key.access_key, key.secret, key.token), "s3", REGION).add_auth(request)
    signed = request.prepare()
    answer = requests.request(method, signed.url, headers=dict(signed.headers), data=body, timeout=PATIENCE)
    return answer.status_code, answer.json().get("Code", "") if not answer.ok else ""


def make_service_account(endpoint: str, key: Key) -> tuple[int, str]:
    """Ask for a key without end that belongs to the same user."""
    asked = json.dumps({"name": "forever", "description": "outlives every session"}).encode()
    return call(endpoint, key, "PUT", "add-service-account", body=_encrypted(key.secret, asked))


def _encrypted(password: str, data: bytes) -> bytes:
    """As madmin-go's ``EncryptData``: one last fragment of a stream of sio-go, its key derived from the password."""
    salt, nonce = os.urandom(32), os.urandom(8)
    cipher = AESGCM(hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _PBKDF2_COST))
    first = cipher.encrypt(nonce + (0).to_bytes(4, "little"), b"", b"")
    return salt + _PBKDF2_AES_GCM + nonce + cipher.encrypt(nonce + (1).to_bytes(4, "little"), data, b"\x80" + first)
