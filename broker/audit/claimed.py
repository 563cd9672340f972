"""What agents claim in whole texts, as it is kept: capped, and under a key of the task it belongs to.

The trail itself has digests only. The texts lie beside it, encrypted (AES-256-GCM) under a key that each task has of
its own and that is wrapped by the ledger's key: whoever has the database has nothing, and a task's texts are erased by
deleting its key, while the trail stays whole. Random bytes are arguments.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from broker.errors import Reason, Tampered
from broker.scope.canonical import canonical_json

NAMES: Final = ("prompt", "tool_call", "plan")
# Of each text so many bytes (UTF-8) are kept; its digest is of the whole.
LONGEST: Final = 16 * 1024
NONCE_BYTES: Final = 12
KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Claimed:
    """The texts of one request. ``about``: the attempt or the access request; ``cut``: which are not whole."""

    about: str
    at_ms: int
    texts: Mapping[str, str]
    cut: tuple[str, ...]


def wrapping_key(ledger_key: bytes) -> bytes:
    """The key that wraps the tasks' keys: this use of the ledger's key, apart from its others."""
    return HKDFExpand(SHA256(), KEY_BYTES, b"jit-broker claimed texts").derive(ledger_key)


def wrap(wrapping: bytes, key: bytes, nonce: bytes, tenant: str, task_id: str) -> bytes:
    """A task's key, for its row."""
    return nonce + AESGCM(wrapping).encrypt(nonce, key, _bound_to(tenant, task_id, "key"))


def unwrap(wrapping: bytes, wrapped: bytes, tenant: str, task_id: str) -> bytes:
    """Raises :class:`Tampered` (ROW_MAC_MISMATCH) if it is not this task's, or not ours."""
    return _open(wrapping, wrapped, _bound_to(tenant, task_id, "key"), task_id)


def seal(key: bytes, texts: Mapping[str, str], nonce: bytes, tenant: str, task_id: str, about: str) -> bytes:
    """``texts`` by name, capped, for their row."""
    kept = {name: _cut(text) for name, text in texts.items()}
    cut = sorted(name for name, text in texts.items() if kept[name] != text)
    body = canonical_json({"texts": kept, "cut": cut})
    return nonce + AESGCM(key).encrypt(nonce, body, _bound_to(tenant, task_id, about))


def unseal(key: bytes, sealed: bytes, at_ms: int, tenant: str, task_id: str, about: str) -> Claimed:
    """Raises :class:`Tampered` (ROW_MAC_MISMATCH) if it is not that request's, or not ours."""
    told = json.loads(_open(key, sealed, _bound_to(tenant, task_id, about), about))
    return Claimed(about, at_ms, told["texts"], tuple(told["cut"]))


def conceal(wrapping: bytes, text: str, nonce: bytes, *bound_to: str) -> str:
    """A text that a row has to hold for a while (a plan that people decide on), as base64."""
    sealed = nonce + AESGCM(wrapping).encrypt(nonce, text.encode(), _bound_to("text", *bound_to))
    return base64.b64encode(sealed).decode()


def reveal(wrapping: bytes, concealed: str, *bound_to: str) -> str:
    """Raises :class:`Tampered` (ROW_MAC_MISMATCH) if it is not that row's, or not ours."""
    try:
        sealed = base64.b64decode(concealed, validate=True)
    except ValueError:
        sealed = b""
    return _open(wrapping, sealed, _bound_to("text", *bound_to), bound_to[-1]).decode()


def _cut(text: str) -> str:
    """At most LONGEST bytes, and no half of a character."""
    return text.encode()[:LONGEST].decode(errors="ignore")


def _bound_to(*names: str) -> bytes:
    return canonical_json(list(names))


def _open(key: bytes, sealed: bytes, bound_to: bytes, what: str) -> bytes:
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound_to)
    except (InvalidTag, ValueError):
        raise Tampered(
            Reason.ROW_MAC_MISMATCH,
            f"the kept texts of {what} were changed by something other than the broker, or belong elsewhere.",
            hint="The digests of what was really said stand in the audit trail.",
            metadata={"rowId": what},
        ) from None
