"""What a yes is bound to: the canonical bytes of one whole request, and their digest (faults.md T5, I5).

Whatever could change what the approver agreed to is in here, under one name each, so that two different
requests never have one digest and one request never has two: parameters as they were bound (canonical), spans as
integers, claimed texts and keys as digests or hex. The request id is not: it names a call, not what is asked.

The format has a name and a version; a later one is another digest, and an approval of the earlier one does not
fit it.
"""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass
from datetime import timedelta

from broker.errors import Conflict, Reason
from broker.scope.canonical import JsonValue, canonical_json
from broker.scope.model import Scope
from broker.scope.request import AccessRequest, text_digest

FORMAT = "jit-broker/access-request"
VERSION = 1
ASKED_VERSION = 2


@dataclass(frozen=True, slots=True)
class Terms:
    """One request with everything that decided about it."""

    tenant: str
    holder: str  # SPIFFE ID
    principal: str  # registry entry
    request: AccessRequest
    scope: Scope
    contract_class: str
    policy_digest: str
    gates: tuple[str, ...]  # ids of the policies that made it need approval
    approvals: tuple[str, ...]  # the approvals needed, by name

    def canonical(self) -> bytes:
        """The canonical bytes."""
        request, scope = self.request, self.scope
        return canonical_json(
            {
                "format": FORMAT,
                "version": VERSION,
                "tenant": self.tenant,
                "holder": self.holder,
                "principal": self.principal,
                "task": request.task_id,
                **_effect(scope),
                "template_digest": scope.template_digest,
                "contract_class": str(self.contract_class),
                "policy_digest": self.policy_digest,
                "gates": sorted(self.gates),
                "approvals": sorted(self.approvals),
                "step": request.step,
                "intent": request.intent,
                "ticket": request.ticket,
                "reason": request.reason,
                "prompt": text_digest(request.prompt),
                "tool_call": text_digest(request.tool_call),
                "plan": text_digest(request.plan),
                "recipient_public_key": request.recipient_public_key.hex(),
                "plan_id": request.plan_id,
                "delegation_id": request.delegation_id,
                # Only where there is one: approvals of requests without keep their digest.
                **({"subject_public_key": request.subject_public_key} if request.subject_public_key else {}),
                **({} if request.wrap is None else {"wrap_us": request.wrap // timedelta(microseconds=1)}),
            }
        )

    def digest(self) -> str:
        """SHA-256 (hex) of the canonical bytes: what approvers see, and what their yes names."""
        return hashlib.sha256(self.canonical()).hexdigest()

    def ask_digest(self) -> str:
        """SHA-256 (hex) of what is asked for, whatever it is called: the same where only words or ids differ.

        A denied request is refused by it for a while: with another reason, in another task, it is still the same. So it
        is for another time (:func:`much_less` says when that is another request), and where ticket and plan say
        the same in other blanks, case or spelling.
        """
        effect = _effect(self.scope)
        del effect["ttl_us"]
        asked: dict[str, JsonValue] = {
            "format": FORMAT + "/asked",
            "version": ASKED_VERSION,
            "tenant": self.tenant,
            "principal": self.principal,
            **effect,
            "ticket": _read(self.request.ticket),
            "plan": text_digest(_read(self.request.plan)),
            "plan_id": self.request.plan_id,
        }
        return hashlib.sha256(canonical_json(asked)).hexdigest()


def much_less(asked: timedelta, denied: timedelta) -> bool:
    """Whether the same for ``asked`` is another request than the one for ``denied``: at most half as long.

    A second less is nothing that people would decide otherwise about.
    """
    return 2 * asked <= denied


def check_digest(given: str, actual: str, access_request_id: str) -> None:
    """Raises :class:`Conflict` (APPROVAL_DIGEST_MISMATCH) where what a person saw is not what is asked."""
    if given != actual:
        raise Conflict(
            Reason.APPROVAL_DIGEST_MISMATCH,
            f"access request {access_request_id} has another digest than the one given.",
            hint="Look at it again, and decide on what is shown now.",
            metadata={"accessRequestId": access_request_id},
        )


def _read(text: str) -> str:
    """What people would call the same text: without blanks and what nobody can see, in one case and one spelling."""
    spelt = unicodedata.normalize("NFKC", text).casefold()
    return "".join(each for each in spelt if each.isprintable() and not each.isspace())


def _effect(scope: Scope) -> dict[str, JsonValue]:
    return {
        "template": scope.template,
        "connector": scope.connector,
        "account": scope.account,
        "environment": scope.environment,
        "resource": scope.resource,
        "actions": sorted(scope.actions),
        "access": scope.access.value,
        "parameters": dict(scope.parameters),
        "ttl_us": scope.ttl // timedelta(microseconds=1),
    }
