"""Values to fill a ledger with: one tenant, one creator, times counted in seconds from T0."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from broker.errors import Reason, Tampered
from broker.policy.decision import Decision, Effect
from broker.ports import Intent, NewTask
from broker.scope.model import AccessClass, Scope
from broker.scope.request import AccessRequest

T0 = datetime(2026, 1, 1, tzinfo=UTC)
TENANT = "default"
ALICE = "spiffe://example.org/agent/alice"
BOB = "spiffe://example.org/agent/bob"
TASK = "task-1"


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


class Keys:
    """A KeyRing whose keys are given; the first is current."""

    def __init__(self, **keys: bytes) -> None:
        self.keys = keys or {"k1": b"k" * 32}

    def current(self) -> tuple[str, bytes]:
        return next(iter(self.keys.items()))

    def find(self, key_id: str) -> bytes:
        if key_id not in self.keys:
            raise Tampered(Reason.ROW_MAC_MISMATCH, f"no key {key_id}")
        return self.keys[key_id]


def new_task(task_id: str = TASK, **changes: Any) -> NewTask:
    """A task of Alice's with Bob as participant, open for 600 s."""
    values: dict[str, Any] = {
        "tenant": TENANT,
        "id": task_id,
        "request_id": f"start-{task_id}",
        "request_digest": f"digest-of-start-{task_id}",
        "creator": ALICE,
        "participants": frozenset({ALICE, BOB}),
        "purpose": "nightly report",
        "ticket": "OPS-1",
        "sponsor": "",
        "created_at": T0,
        "deadline": at(600),
        "max_open": 100,
    }
    return NewTask(**{**values, **changes})


def intent(name: str = "1", *, task: str = TASK, now: float = 1, ttl: float = 60, **changes: Any) -> Intent:
    """Alice asks, ``now`` seconds after T0, for ``ttl`` seconds; the upstream call is given 10 s."""
    request = AccessRequest(
        request_id=changes.pop("request_id", f"request-{name}"),
        template="orders-readonly",
        task_id=task,
        account="acme",
        environment="dev",
        resource="orders",
        ttl=timedelta(seconds=ttl),
        step="plan",
    )
    values: dict[str, Any] = {
        "tenant": TENANT,
        "lease_id": f"lease-{name}",
        "attempt_id": f"attempt-{name}",
        "svid_serial": "5e71a1",
        "holder": ALICE,
        "entry": "alice",
        "owner": "https://idp.test#ada",
        "request": request,
        "request_digest": f"digest-{request.request_id}",
        "scope": Scope(
            template="orders-readonly",
            template_digest="t" * 64,
            connector=changes.pop("connector", "bao"),
            account="acme",
            environment="dev",
            resource="orders",
            access=AccessClass.READ,
            actions=("SELECT",),
            parameters={"schema": "public"},
            ttl=timedelta(seconds=ttl),
            grant={"role": "readonly"},
        ),
        "contract_class": "IMMEDIATE",
        "decision": Decision(Effect.ALLOW, ("dev-read",), ("reading in dev",), (), "p" * 64),
        "handle": {"attempt": f"attempt-{name}"},
        "now": at(now),
        "issue_deadline": at(now + 10),
        "expires_at": at(now + ttl),
        "max_live_leases": 100,
        "audit": {"reason": "because"},
    }
    return Intent(**{**values, **changes})
