"""What a fresh login is for: the ``nonce`` that binds a provider's signature to one act.

The client computes it to log in with, the broker to compare: both from what they have in hand, so that a broker
that showed a person one thing and asked the provider for another would not agree with itself. Every action has a
domain of its own, and its fields are named: no two acts have one nonce.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping

from broker.scope.canonical import JsonValue, canonical_json

FORMAT = "jit-broker/fresh-login"
VERSION = 1

# The actions that take a fresh login, as both sides name them.
APPROVE_ACCESS_REQUEST = "ApproveAccessRequest"  # access_request_id, digest
RESUME_SUSPENSION = "ResumeSuspension"  # suspension_id, reason
BREAK_GLASS = "BreakGlass"
FORGET_LEASE = "ForgetLease"  # lease_id, reason
RELEASE_RECOVERY = "ReleaseRecovery"  # recovery_id, reason
REVIEW_BREAK_GLASS = "ReviewBreakGlass"
# For whom an agent acts: a login of its own audience, which opens nothing at the people's door.
ON_BEHALF_OF = "on-behalf-of"  # agent, request_id


def nonce_of(action: str, fields: Mapping[str, str]) -> str:
    """The nonce of doing ``action`` with exactly these ``fields``: base64url of a SHA-256, 43 characters.

    Raises :class:`ValueError` for an action or a field without a name, or text that is not Unicode.
    """
    if not action or not all(fields):
        raise ValueError("an action and its fields have names")
    said: dict[str, JsonValue] = {"format": FORMAT, "version": VERSION, "action": action, "fields": dict(fields)}
    digest = hashlib.sha256(canonical_json(said)).digest()
    return base64.urlsafe_b64encode(digest).removesuffix(b"=").decode()


def task_nonce(agent: str, request_id: str) -> str:
    """What a person logs in with so that ``agent`` (SPIFFE ID) acts for them in the task of this request id."""
    return nonce_of(ON_BEHALF_OF, {"agent": agent, "request_id": request_id})
