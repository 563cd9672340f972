"""What a fresh login for break-glass is for: the fields that its nonce is made of, the same for client and broker.

The nonce itself is :func:`broker.approval.intent_digest.nonce_of` of an action and these fields.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import timedelta

from broker.scope.canonical import canonical_json

# Beside those that ``intent_digest.py`` names.
OVERRIDE_BREAK_GLASS = "OverrideBreakGlass"
CREATE_BREAK_GLASS_CODES = "CreateBreakGlassCodes"


def use_fields(
    *,
    template: str,
    parameters: Mapping[str, str],
    account: str,
    environment: str,
    resource: str,
    ttl: timedelta,
    reason: str,
    incident: str,
    task_id: str,
    agent: str,
    plan: str,
) -> dict[str, str]:
    """Of ``BreakGlassRequest``: everything but the request id and the token."""
    return {
        "template": template,
        "parameters": canonical_json(dict(parameters)).decode(),
        "account": account,
        "environment": environment,
        "resource": resource,
        "ttl_us": str(ttl // timedelta(microseconds=1)),
        "reason": reason,
        "incident": incident,
        "task_id": task_id,
        "agent": agent,
        "plan_sha256": hashlib.sha256(plan.encode()).hexdigest(),
    }


def review_fields(lease_id: str, findings: str) -> dict[str, str]:
    """Of ``ReviewBreakGlassRequest``."""
    return {"lease_id": lease_id, "findings_sha256": hashlib.sha256(findings.encode()).hexdigest()}


def override_fields(kind: str, subject: str, person: str, reason: str) -> dict[str, str]:
    """Of ``OverrideBreakGlassRequest``; ``kind`` without its prefix."""
    return {"kind": kind, "subject": subject, "person": person, "reason": reason}


def codes_fields(batch_id: str, person: str, count: int, reason: str) -> dict[str, str]:
    """Of ``CreateBreakGlassCodesRequest``."""
    return {"batch_id": batch_id, "person": person, "count": str(count), "reason": reason}
