"""Values to fill a ledger with: one tenant, one creator, times counted in seconds from T0."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from broker.approval.separation import Interest
from broker.errors import Reason, Tampered
from broker.identity.fresh_proof import FreshProof
from broker.identity.id_token import IdToken
from broker.policy.decision import Decision, Effect
from broker.ports.access_requests import Filing, Vote
from broker.ports.intents import Intent, Redemption
from broker.ports.proofs import ProofRecord
from broker.ports.tasks import NewTask
from broker.scope.model import AccessClass, Scope
from broker.scope.request import AccessRequest
from broker.secret import Secret

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


def filing(name: str = "1", *, task: str = TASK, now: float = 1, ttl: float = 60, **changes: Any) -> Filing:
    """Alice asks, ``now`` seconds after T0, for what needs "sre": to be decided within 100 s, redeemed within 50."""
    asked = intent(name, task=task, now=now, ttl=ttl)
    request = replace(asked.request, **changes.pop("request", {}))
    values: dict[str, Any] = {
        "tenant": TENANT,
        "id": f"areq-{name}",
        "holder": ALICE,
        "principal": "alice",
        "request": request,
        "request_digest": request.digest(),
        "digest": hashlib.sha256(name.encode()).hexdigest(),
        "ask_digest": hashlib.sha256(f"asked {name}".encode()).hexdigest(),
        "scope": asked.scope,
        "contract_class": "IMMEDIATE",
        "decision": Decision(Effect.NEEDS_APPROVAL, ("gate",), ("people",), (), "p" * 64, ("sre",)),
        "interests": (Interest(("https://idp.test", "owner"), "owns the agent"),),
        "now": at(now),
        "expires_at": at(now + 100),
        "redeem_within": timedelta(seconds=50),
        "max_pending": 3,
        "denied_since": at(now - 30),
        "cool_down": timedelta(seconds=30),
        "audit": {"reason": "because"},
    }
    return Filing(**{**values, **changes})


def vote(who: str = "bea", *, yes: bool = True, now: float = 5, **changes: Any) -> Vote:
    """``who`` says yes, for "sre", or no, ``now`` seconds after T0."""
    values: dict[str, Any] = {
        "issuer": "https://idp.test",
        "subject": who,
        "yes": yes,
        "rule": "sre" if yes else "",
        "how": "fresh-id-token",
        "note": "",
        "groups": ("sre",),
        "at": at(now),
    }
    return Vote(**{**values, **changes})


def redeeming(filed: Filing, name: str = "redeem", *, now: float = 10, **changes: Any) -> Intent:
    """The intent that redeems what ``filed`` became, in the lease that is its."""
    redemption = Redemption(filed.id, filed.digest)
    lease_id = "lease-" + filed.id.removeprefix("areq-")
    return intent(name, now=now, **{"lease_id": lease_id, "redeems": redemption, **changes})


def proof(name: str = "1", who: str = "bea") -> ProofRecord:
    """A fresh login; the same name is the same token."""
    token = IdToken(
        issuer="https://idp.test",
        subject=who,
        audience="jit-broker",
        issued_at=at(4),
        expires_at=at(9),
        auth_time=at(4),
        nonce="n",
        groups=None,
        amr=frozenset(),
        acr="",
        digest=hashlib.sha256(name.encode()).hexdigest(),
    )
    return ProofRecord(FreshProof(token, Secret(f"header.{name}.signature")), "Act", "about")
