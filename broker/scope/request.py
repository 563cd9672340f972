"""What an agent asks, as it asked it, and the digest that names it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple

from broker.scope.canonical import canonical_json


class Claimed(NamedTuple):
    """The SHA-256 (hex) of each long text that an agent claimed; empty for an absent one."""

    prompt: str
    tool_call: str
    plan: str


@dataclass(frozen=True, slots=True)
class AccessRequest:
    """One RequestCredential, freed from the wire. Texts are empty where the agent said nothing.

    ``prompt``, ``tool_call`` and ``plan`` are claimed by the agent and never trusted; their digests
    enter the audit trail, their texts do not leave this object.
    """

    request_id: str
    template: str
    task_id: str
    account: str
    environment: str
    resource: str
    ttl: timedelta
    parameters: Mapping[str, str] = field(default_factory=dict)
    step: str = ""
    intent: str = ""
    reason: str = ""
    ticket: str = ""
    prompt: str = ""
    tool_call: str = ""
    plan: str = ""
    recipient_public_key: bytes = b""  # X25519; empty: the credential is delivered in clear
    plan_id: str = ""  # the registered plan whose step it is
    delegation_id: str = ""  # the delegation that it redeems
    subject_public_key: str = ""  # the agent's own, to be certified: PEM of a CSR, or one line of OpenSSH; not secret
    wrap: timedelta | None = None  # for how long the upstream keeps it for one reader; None: it is delivered itself

    def claimed(self) -> Claimed:
        """The digests of its long texts."""
        return Claimed(text_digest(self.prompt), text_digest(self.tool_call), text_digest(self.plan))

    def digest(self, claimed: Claimed | None = None) -> str:
        """SHA-256 (hex) of the canonical bytes of everything asked, the request id included.

        ``claimed``: :meth:`claimed`, where somebody has it already.
        """
        # Only where it is there: what was asked before there were these keeps its digest.
        names = ("plan_id", "delegation_id", "subject_public_key")
        claimed = claimed or self.claimed()
        cited = {name: value for name in names if (value := getattr(self, name))}
        wrap = {} if self.wrap is None else {"wrap_us": self.wrap // timedelta(microseconds=1)}
        return hashlib.sha256(
            canonical_json(
                {
                    **cited,
                    **wrap,
                    "request_id": self.request_id,
                    "template": self.template,
                    "task_id": self.task_id,
                    "account": self.account,
                    "environment": self.environment,
                    "resource": self.resource,
                    "ttl_us": self.ttl // timedelta(microseconds=1),
                    "parameters": dict(self.parameters),
                    "step": self.step,
                    "intent": self.intent,
                    "reason": self.reason,
                    "ticket": self.ticket,
                    "prompt": claimed.prompt,
                    "tool_call": claimed.tool_call,
                    "plan": claimed.plan,
                    "recipient_public_key": self.recipient_public_key.hex(),
                }
            )
        ).hexdigest()


class Digested(str):
    """A claimed text of which only the digest was kept: it stands for the text wherever only the digest counts.

    As a text it says what it is, so that a template that demands the text finds it said.
    """

    __slots__ = ("sha256",)
    sha256: str

    def __new__(cls, sha256: str) -> Digested:
        """Of a text with this SHA-256 (hex)."""
        made = super().__new__(cls, f"sha256:{sha256}")
        made.sha256 = sha256
        return made


def text_digest(text: str) -> str:
    """SHA-256 (hex) of a claimed text, empty for an absent one."""
    if isinstance(text, Digested):
        return text.sha256
    return hashlib.sha256(text.encode()).hexdigest() if text else ""
