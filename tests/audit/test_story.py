"""The trail in words: nothing invented, nothing left out, an agent's words in quotes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from broker.audit.event import EventType
from broker.audit.record import Record
from broker.audit.story import sentence, short

AGENT = "spiffe://example.org/agent/a"
PERSON = "https://id.example.org#dana"
RECORD = Record(7, 1_767_225_600_042, "w", "t", "", AGENT, "broker", "task-1", "lease-1", "jb-1", AGENT, {}, "0" * 64)
LATER = 1_767_225_900_000  # five minutes, less 42 ms
SCOPE = {"template": "orders", "resource": "orders-db", "account": "dev", "environment": "prod", "parameters": {}}


def told(kind: str, data: dict[str, Any], actor: str = AGENT, vouched_by: str = "broker") -> str:
    return sentence(replace(RECORD, type=kind, data=data, actor=actor, vouched_by=vouched_by))


def test_what_an_agent_was_allowed() -> None:
    data = {
        "access": "read",
        "template": "orders",
        "resource": "orders-db",
        "account": "dev",
        "environment": "prod",
        "parameters": {"day": "2026-01-01", "a": "b"},
        "expires_ms": LATER,
        "policies": ["p1", "p2"],
        "attempt": 2,
        "intent": 'say "hi"\n',
        "prompt_sha256": "ab" * 32,
    }
    assert told("lease.intent", data) == (
        "example.org/agent/a is allowed read access, orders on orders-db of account dev, prod (a=b, day=2026-01-01),"
        " until 2026-01-01 00:05:00Z, by policy p1, p2 (attempt 2); it says: intent"
        ' "say \\"hi\\"\\n", prompt sha256:abababababab'
    )


@pytest.mark.parametrize(
    ("kind", "data", "actor", "expected"),
    [
        (
            "admin.read",
            {"method": "/s.AdminService/GetLease", "about": {"lease_id": "lease-1"}},
            PERSON,
            'dana (id.example.org) looked: GetLease of lease_id "lease-1"',
        ),
        (
            "admin.read",
            {"method": "/s.AdminService/ListTasks", "about": {}},
            PERSON,
            "dana (id.example.org) looked: ListTasks",
        ),
        (
            "admin.reads_summarised",
            {"counts": {"/s.AdminService/ListTasks": 3, "/s.AdminService/GetTask": 1}},
            PERSON,
            "further looks of dana (id.example.org) were only counted: 1 x GetTask, 3 x ListTasks",
        ),
        (
            "lease.revoking",
            {"cause": "REVOKED_BY_OPERATOR", "reason": "it scans"},
            PERSON,
            'dana (id.example.org) ends it (revoked by operator): "it scans"; the upstream is asked until it confirms',
        ),
        (
            "task.completed",
            {"cause": "COMPLETED_BY_OPERATOR", "attempts_ended": 1, "reason": "it scans"},
            PERSON,
            'dana (id.example.org) completed the task: "it scans"; 1 credential ended by it',
        ),
        (
            "deploy.activated",
            {"digest": "ab" * 32},
            PERSON,
            "the deploy set abababababab is in force (reloaded by dana (id.example.org))",
        ),
        (
            "lease.revoked",
            {"cause": "EXPIRED", "failures": 0},
            "broker",
            "the upstream confirmed: the credential is dead (expired)",
        ),
        (
            "lease.revoked",
            {"cause": "HOLDER_LEFT", "failures": 2},
            "broker",
            "the upstream confirmed: the credential is dead (holder left), after 2 failed tries",
        ),
        (
            "lease.stuck",
            {"error": "403", "failures": 3, "attempt": 1},
            "broker",
            "ALARM: it cannot be ended so far: 403; tried for ever",
        ),
        (
            "request.refused",
            {"method": "/x.Y/Do", "reason": "TTL_TOO_LONG", "message": "too long", "metadata": {}},
            AGENT,
            "example.org/agent/a was refused Do: TTL_TOO_LONG: too long",
        ),
        (
            "access.voted",
            {"vote": "yes", "approval": "production", "how": "oidc", "groups": ["release"], "note": "ok"},
            PERSON,
            'dana (id.example.org) said yes for production (of release; by oidc), noting "ok"',
        ),
        (
            "suspension.suspended",
            {"kind": "everything", "value": "", "until_ms": None, "attempts_ended": 1, "reason": "odd"},
            PERSON,
            'dana (id.example.org) suspended everything: "odd"; 1 credential ended',
        ),
        (
            "suspension.suspended",
            {"kind": "agent", "value": "a", "until_ms": LATER, "attempts_ended": 0, "reason": "odd"},
            PERSON,
            'dana (id.example.org) suspended agent a until 2026-01-01 00:05:00Z: "odd"; 0 credentials ended',
        ),
        (
            "suspension.suspended",
            {"value": "b", "attempts_ended": 2, "reason": "odd"},
            PERSON,
            'dana (id.example.org) suspended b: "odd"; 2 credentials ended',
        ),
        (
            "task.started",
            {"participants": [AGENT, PERSON, "broker"], "ticket": "T-1", "purpose": "look", "deadline_ms": LATER},
            AGENT,
            'example.org/agent/a started the task "look", with dana (id.example.org), broker, ticket "T-1"; it ends at'
            " 2026-01-01 00:05:00Z at the latest",
        ),
        (
            "task.started",
            {"participants": [AGENT], "purpose": "look \N{SNOWMAN}", "deadline_ms": LATER},
            AGENT,
            'example.org/agent/a started the task "look \N{SNOWMAN}"; it ends at 2026-01-01 00:05:00Z at the latest',
        ),
        (
            "task.reported",
            {
                "artifacts": [{"uri": "s3://a"}],
                "mutations": [
                    {"action": "UPDATED", "resource": "orders", "count": 7},
                    {"action": "DELETED", "resource": "users"},
                ],
            },
            AGENT,
            'example.org/agent/a reports: made "s3://a", updated "orders" (7 of them), deleted "users"',
        ),
        (
            "texts.erased",
            {"tasks": 2, "reason": "asked"},
            PERSON,
            'dana (id.example.org) erased the prompts, tool calls and plans of 2 tasks: "asked"; their digests stay',
        ),
        (
            "texts.erased",
            {"reason": "asked"},
            PERSON,
            'dana (id.example.org) erased the prompts, tool calls and plans: "asked"; their digests stay',
        ),
        (
            "lease.intent",
            {**SCOPE, "access": "read", "expires_ms": LATER, "policies": [], "attempt": 1},
            AGENT,
            "example.org/agent/a is allowed read access, orders on orders-db of account dev, prod, until 2026-01-01"
            " 00:05:00Z, by no policy",
        ),
        (
            "lease.issued",
            {"upstream": "v-1", "expires_ms": LATER},
            "broker",
            "the upstream issued the credential, known there as v-1; it ends by itself at 2026-01-01 00:05:00Z",
        ),
        (
            "lease.issued",
            {"expires_ms": LATER},
            "broker",
            "the upstream issued the credential; it ends by itself at 2026-01-01 00:05:00Z",
        ),
        (
            "access.requested",
            {**SCOPE, "access": "write", "ttl_ms": 119_500, "approvals": ["production", "data"], "reason": "r"},
            AGENT,
            "example.org/agent/a asks people for write access, orders on orders-db of account dev, prod, for 119.5 s;"
            ' it takes production, data; it says: reason "r"',
        ),
        (
            "access.requested",
            {**SCOPE, "access": "write", "ttl_ms": 120_000, "approvals": ["production"]},
            AGENT,
            "example.org/agent/a asks people for write access, orders on orders-db of account dev, prod, for 2 min;"
            " it takes production",
        ),
        (
            "access.voted",
            {"vote": "no", "approval": "production", "how": "oidc", "groups": ["a", "b"]},
            PERSON,
            "dana (id.example.org) said no for production (of a, b; by oidc)",
        ),
        (
            "break_glass.used",
            {"for_agent": AGENT, "template": "orders", "incident": "I-1", "reason": "down", "told": ["x"]},
            PERSON,
            'dana (id.example.org) BROKE GLASS for example.org/agent/a on orders, "I-1": "down"; told: 1 person',
        ),
        (
            "break_glass.used",
            {"for_agent": "", "template": "orders", "incident": "I-1", "reason": "down", "told": []},
            PERSON,
            'dana (id.example.org) BROKE GLASS on orders, "I-1": "down"; told: 0 persons',
        ),
        (
            "audit.checkpoint",
            {"note": "origin.example\n7\nhash\n"},
            "broker",
            "the broker signed for the 7 records of origin.example so far",
        ),
        (
            "request.refusals_summarised",
            {"counts": {"/s.B/Do": 3}},
            AGENT,
            "further refusals of example.org/agent/a were only counted: 3 x Do",
        ),
        ("deploy.activated", {"digest": "ab" * 32}, "broker", "the deploy set abababababab is in force"),
        (
            "task.ended",
            {"attempts_ended": 0},
            "broker",
            "the task ended (no cause recorded); 0 credentials ended by it",
        ),
        (
            "task.completed",
            {"attempts_ended": 0},
            AGENT,
            "example.org/agent/a completed the task; 0 credentials ended by it",
        ),
        (
            "suspension.suspended",
            {"value": "", "attempts_ended": 0, "reason": "odd"},
            PERSON,
            'dana (id.example.org) suspended everything: "odd"; 0 credentials ended',
        ),
        (
            "admin.read",
            {"method": "/s.AdminService/ListLeases", "about": {"task_id": "t", "holder": "h"}},
            PERSON,
            'dana (id.example.org) looked: ListLeases of holder "h", task_id "t"',
        ),
        # What a record calls "why", or "who", is not what a sentence means by it.
        (
            "lease.expired",
            {"cause": "DEADLINE_PASSED", "why": "x", "who": "y"},
            "broker",
            "its time is over: the credential is dead (deadline passed)",
        ),
        (
            "access.denied",
            {"why": "x", "who": "y"},
            PERSON,
            "dana (id.example.org) denied the request",
        ),
        (
            "access.lapsed",
            {"why": "nobody decided in time"},
            "broker",
            "the request lapsed: nobody decided in time",
        ),
        (
            "audit.checkpoint",
            {"note": "an origin\n7\nhash\n"},
            "broker",
            "the broker signed for the 7 records of an origin so far",
        ),
        ("daemon.started", {"recovered": 2}, "broker", "the broker started; 2 credentials found due or unknown"),
    ],
)
def test_sentences(kind: str, data: dict[str, Any], actor: str, expected: str) -> None:
    assert told(kind, data, actor) == expected


def test_who_vouches_is_said_where_it_is_not_the_broker() -> None:
    assert told("delivery.confirmed", {"attempt": 1}, vouched_by="agent").endswith("(the agent's word)")
    assert told("delivery.confirmed", {"attempt": 1}, vouched_by="upstream").endswith("(seen upstream)")
    assert told("delivery.confirmed", {"attempt": 1}, vouched_by="somebody").endswith("(somebody)")


@pytest.mark.parametrize("kind", [each.value for each in EventType] + ["some.thing"])
def test_a_record_of_a_form_that_was_not_expected_is_told_plainly_and_whole(kind: str) -> None:
    data = {"policies": 3, "participants": None, "odd": "x" * 50, "until_ms": "soon", "people": 1, "attempts_ended": []}
    said = told(kind, data)
    assert said
    # Sentences that need nothing of the data stand; every other one tells all that is there.
    assert sentence(replace(RECORD, type=kind, data={})) == said or said == (
        f'{kind} by example.org/agent/a: {{"attempts_ended": [], "odd": "{"x" * 50}", "participants": null,'
        ' "people": 1, "policies": 3, "until_ms": "soon"}'
    )


def test_what_is_told_plainly_is_told_in_its_own_letters_and_sorted() -> None:
    assert told("some.thing", {"b": "\N{SNOWMAN}", "a": 1}) == (
        'some.thing by example.org/agent/a: {"a": 1, "b": "\N{SNOWMAN}"}'
    )


def test_names_for_people() -> None:
    assert [short(each) for each in (AGENT, PERSON, f"{PERSON}#2", "broker")] == [
        "example.org/agent/a",
        "dana (id.example.org)",
        "dana#2 (id.example.org)",
        "broker",
    ]
