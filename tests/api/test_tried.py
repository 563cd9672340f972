"""``broker policy explain`` says what brokerd says: requests tried on a deploy set, and asked of who serves it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from broker.api.v1 import broker_service_pb2 as pb
from broker.cli.policy_trials import trial_set
from broker.policy.tools import tool_called
from broker.policy.trial import Outcome, Supposed, Trial, tried
from broker.scope.request import AccessRequest
from tests.api.served import DOMAIN, Served, ask, reason, serve, start_task, write_config
from tests.deployfiles.test_broken import private_copy

AGENTS = ("analyst", "executor", "migrator", "other", "planner", "releaser", "reporter", "stranger")
TEMPLATES = ("orders-production", "orders-readonly", "orders-readwrite", "reports-read", "reports-s3-canary", "nothing")
SAYS = ("", *("said",) * 20, " ", "\u200b")
# Well-formed ones: more of a tool call than its tool cannot be supposed.
CALLS = ("", *('{"tool": "psql"}',) * 3, '{"name": "rm"}')
REQUESTS = 300
# What is decided before a request is looked at, or after policy has been asked.
ELSEWHERE = {"TASK_NOT_FOUND"}


@pytest.fixture
async def listed(tmp_path: Path) -> AsyncIterator[Served]:
    """deploy/dev, with an allow list of tools for the migrator, and a policy under trial for nobody."""
    write_config(tmp_path)
    migrator = tmp_path / "deploy/agents/migrator.yaml"
    migrator.write_text(migrator.read_text() + "tools: [psql]\n")
    async with serve(tmp_path) as running:
        yield running


def chosen(chance: random.Random, agent: str) -> AccessRequest:
    """Something that somebody might ask, more often right than not."""
    template = chance.choice(TEMPLATES)
    reports = template.startswith("reports")
    environment = "production" if template == "orders-production" else "dev"
    return AccessRequest(
        request_id=f"r{chance.getrandbits(64):x}",
        template=template,
        task_id="",
        account=chance.choice(("123456789012" if template == "reports-read" else "dev",) * 8 + ("prod",)),
        environment=chance.choice((environment,) * 6 + ("dev", "staging", "production", "DEV")),
        resource=chance.choice(("orders-reports" if reports else "orders",) * 8 + ("*", "orders\u200b")),
        ttl=timedelta(seconds=chance.choice((1, *(60,) * 6, 299, 300, 301, 600, 601, 900, 901))),
        parameters=chance.choice(({"day": "daily/2026-11-20"} if reports else {},) * 5 + ({}, {"day": "daily/.."})),
        **{name: chance.choice(SAYS) for name in ("step", "prompt", "plan")},
        **{name: chance.choice((*SAYS, *("said",) * 20)) for name in ("intent", "reason", "ticket")},
        tool_call=chance.choice(CALLS),
    )


async def asked(served: Served, agent: str, request: AccessRequest, task: str) -> tuple[str, ...]:
    """What brokerd answers."""
    said = {
        name: getattr(request, name) for name in ("step", "prompt", "plan", "intent", "reason", "ticket", "tool_call")
    }
    where = {name: getattr(request, name) for name in ("template", "account", "environment", "resource")}
    message: dict[str, Any] = {
        **said,
        **where,
        "parameters": request.parameters,
        "ttl": request.ttl,
        "validate_only": True,
    }
    try:
        answer = await served.stub(f"spiffe://{DOMAIN}/agent/{agent}").RequestCredential(
            ask(task, request.request_id, **message)
        )
    except grpc.aio.AioRpcError as error:
        return ("DENY", reason(error)[1])
    decision = answer.decision
    if decision.effect == pb.Decision.EFFECT_ALLOW:
        return ("ALLOW", *decision.policies)
    return ("NEEDS_APPROVAL", *decision.policies, *decision.approvals)


def told(outcome: Outcome) -> tuple[str, ...]:
    """The same of what was tried."""
    if outcome.reason is not None:
        return ("DENY", outcome.reason.value)
    return (outcome.effect.value, *outcome.policies, *outcome.approvals)


async def test_what_is_tried_is_what_is_decided(listed: Served, tmp_path: Path) -> None:
    trials = trial_set(private_copy(tmp_path / "deploy", tmp_path / "copy"))
    # The connectors that are served are not those that the set names.
    contracts = {name: upstream.contract for name, upstream in listed.upstreams.items()}
    rules = replace(trials.rules, contracts={**trials.rules.contracts, **contracts})
    chance = random.Random(20261130)
    tasks = {
        agent: await start_task(listed.stub(f"spiffe://{DOMAIN}/agent/{agent}"), f"t-{agent}")
        for agent in AGENTS
        if agent != "stranger"
    }
    seen: Counter[str] = Counter()
    for _ in range(REQUESTS):
        agent = chance.choice(AGENTS)
        request = replace(chosen(chance, agent), task_id=tasks.get(agent, "task-none"))
        supposed = Supposed(tool=tool_called(request.tool_call) if request.tool_call else "")
        trial = Trial(f"spiffe://{DOMAIN}/agent/{agent}", request, datetime.now(UTC), supposed=supposed)
        answer = await asked(listed, agent, request, request.task_id)
        if answer[-1] not in ELSEWHERE:
            assert answer == told(tried(trial, rules)), (agent, request)
        seen[" ".join(answer[:2] if answer[0] == "DENY" else answer[:1])] += 1
    # It is not all one answer.
    assert {"ALLOW", "NEEDS_APPROVAL", "DENY POLICY_DENIED", "DENY FIELD_INVALID", "DENY TOOL_CALL_MALFORMED"} <= set(
        seen
    )
    assert seen["ALLOW"] >= 20, seen
