"""``broker plan``, ``delegate`` and ``delegations``: what they send, and how they show what agents wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from broker.api.v1 import plan_pb2
from broker.errors import Denied, Reason
from tests.cli.conftest import ASK, Cli
from tests.client.fake_broker import FakeBroker

ACTION = {
    "step": "count",
    "template": "orders-readonly",
    "account": "shop",
    "environment": "dev",
    "resource": "orders",
    "ttl": "1m30s",
    "parameters": {"schema": "public"},
}
PLAN: dict[str, Any] = {"text": "Count, then report.", "actions": [ACTION]}
OTHER = "spiffe://example.org/agent/two"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(PLAN))
    return path


def test_register_show_confirm(cli: Cli, fake: FakeBroker, file: Path) -> None:
    done = cli("plan", "register", str(file), "--task", "task-1", "--valid-for", "10m")
    assert done.returncode == 0, done.stderr
    (asked,) = fake.asked("RegisterPlan")
    assert (asked.task_id, asked.text, asked.valid_for.seconds) == ("task-1", PLAN["text"], 600)
    (action,) = asked.actions
    assert (action.step, action.ttl.seconds, dict(action.parameters)) == ("count", 90, {"schema": "public"})
    shown = cli("plan", "show", "plan-1").stdout
    assert "plan-1  REGISTERED until 2031-05-01T12:03:10Z" in shown
    assert "1m30s  orders schema=public" in shown
    digest = fake.plans["plan-1"].digest
    confirmed = cli("plan", "confirm", "plan-1", "--digest", digest, "--reason", "fine", "--format", "json")
    assert json.loads(confirmed.stdout)["state"] == "CONFIRMED"
    (decided,) = fake.asked("ValidatePlan")
    assert (decided.digest, decided.reason) == (digest, "fine")
    assert digest in cli("plan", "list", "--task", "task-1").stdout


def test_reject_says_why(cli: Cli, fake: FakeBroker, file: Path) -> None:
    cli("plan", "register", str(file), "--task", "task-1")
    digest = fake.plans["plan-1"].digest
    assert cli("plan", "reject", "plan-1", "--digest", digest).returncode == 2
    assert cli("plan", "reject", "plan-1", "--digest", digest, "--reason", "too much").returncode == 0
    assert fake.plans["plan-1"].state == plan_pb2.Plan.STATE_REJECTED


def test_what_was_not_looked_at_is_not_decided_about(cli: Cli, fake: FakeBroker, file: Path) -> None:
    cli("plan", "register", str(file), "--task", "task-1")
    done = cli("plan", "confirm", "plan-1", "--digest", "f" * 64)
    assert done.returncode == 3
    assert "PLAN_DIGEST_MISMATCH" in done.stderr
    assert fake.asked("ValidatePlan") == []


def test_an_agents_text_does_not_move_the_cursor(cli: Cli, fake: FakeBroker, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({**PLAN, "text": "safe\x1b[2J\u202eevil\rnothing"}))
    shown = cli("plan", "register", str(file), "--task", "task-1").stdout
    assert "safe\ufffd[2J\ufffdevil\ufffdnothing" in shown


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "plan.json is not JSON"),
        ('{"text": "a", "text": "b", "actions": []}', "plan.json has a member twice"),
        ('{"text": "a"}', "plan.json is not an object of text and actions"),
        ('{"text": "a", "actions": [1]}', "plan.json: actions[0] is not an object"),
        (json.dumps({**PLAN, "actions": [{**ACTION, "more": 1}]}), "actions[0] has 'more'"),
        (json.dumps({**PLAN, "actions": [{**ACTION, "step": ""}]}), "actions[0].step is missing"),
        (json.dumps({**PLAN, "actions": [ACTION, {**ACTION, "ttl": 5}]}), "actions[1].ttl is missing, or no text"),
        (json.dumps({**PLAN, "actions": [{**ACTION, "ttl": "5"}]}), "TTL_INVALID"),
        (json.dumps({**PLAN, "actions": [{**ACTION, "parameters": {"a": 1}}]}), "actions[0].parameters is not"),
    ],
)
def test_a_plan_file_that_is_none(cli: Cli, fake: FakeBroker, tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "plan.json"
    file.write_text(text)
    done = cli("plan", "register", str(file), "--task", "task-1")
    assert done.returncode == 3
    assert told in done.stderr
    assert fake.asked("RegisterPlan") == []


def test_delegate_list_take_back(cli: Cli, fake: FakeBroker) -> None:
    options = ("--resource", "orders/eu", "--ttl", "2m", "--param", "schema=public", "--format", "env")
    done = cli("delegate", "lease-1", OTHER, *options)
    assert done.returncode == 0, done.stderr
    assert "BROKER_DELEGATION_ID=delegation-1" in done.stdout
    (asked,) = fake.asked("DelegateLease")
    assert (asked.lease_id, asked.delegate, asked.resource, asked.ttl.seconds) == ("lease-1", OTHER, "orders/eu", 120)
    assert "until 2031-05-01T12:03:10Z at the latest" in cli("delegations", "list", "--task", "task-0").stdout
    assert cli("delegations", "revoke", "delegation-1").returncode == 0
    assert "taken back at" in cli("delegations", "list", "--task", "task-0").stdout


def test_a_request_cites_what_it_rests_on(cli: Cli, fake: FakeBroker, tmp_path: Path) -> None:
    for number, cited in enumerate((("--plan-id", "plan-1", "--step", "count"), ("--delegation", "delegation-1"))):
        out = str(tmp_path / f"out{number}")
        done = cli("request", *ASK, "--ttl", "1m", "--purpose", "p", "--out", out, *cited)
        assert done.returncode == 0, done.stderr
    first, second = fake.asked("RequestCredential")
    assert (first.plan_id, first.step, first.delegation_id) == ("plan-1", "count", "")
    assert (second.plan_id, second.delegation_id) == ("", "delegation-1")


def test_a_refusal_is_told_by_name(cli: Cli, fake: FakeBroker, file: Path) -> None:
    fake.faults["RegisterPlan"].append(Denied(Reason.AGENT_ROLE_REQUIRED, "you are no planner.", hint="Become one."))
    done = cli("plan", "register", str(file), "--task", "task-1")
    assert done.returncode == 3
    assert done.stderr == "error: AGENT_ROLE_REQUIRED: you are no planner.\nhint: Become one.\n"
