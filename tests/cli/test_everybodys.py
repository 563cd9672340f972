"""``broker admin`` against a brokerd: what is listed, shown and ended, and what an agent's words cannot do."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.api.served import ANALYST, OTHER, Served, ask, private, start_task
from tests.cli.at_the_door import at_the_door, served_quietly

Run = Callable[..., Awaitable[Result]]


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with served_quietly(tmp_path) as running:
        yield running


@pytest.fixture
def run(served: Served, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``broker admin`` as ``who``."""
    invoke = at_the_door(served, monkeypatch)
    return lambda who, *words: invoke(who, "admin", *words)


async def held(served: Served, agent: str = ANALYST, **fields: Any) -> Any:
    stub = served.stub(agent)
    return (await stub.RequestCredential(ask(await start_task(stub, **fields)))).lease


async def listed(run: Run, *arguments: str) -> list[str]:
    done = await run("dana", *arguments, "--format", "json")
    assert done.exit_code == 0, done.stderr
    return [each["id"] for each in json.loads(done.stdout)]


async def test_leases_are_listed_shown_and_revoked(run: Run, served: Served) -> None:
    first, second = await held(served), await held(served, OTHER)
    assert await listed(run, "leases") == [second.id, first.id]
    assert await listed(run, "leases", "--holder", ANALYST) == [first.id]
    assert await listed(run, "leases", "--task", second.task_id, "--template", "orders-readonly") == [second.id]
    text = (await run("dana", "leases")).stdout.splitlines()
    assert text[0].split() == ["LEASE", "HOLDER", "TASK", "TEMPLATE", "RESOURCE", "STATE"]
    assert [line.split()[:2] for line in text[1:]] == [[second.id, OTHER], [first.id, ANALYST]]
    shown = (await run("dana", "lease", first.id)).stdout
    assert all(told in shown for told in (first.id, ANALYST, "ACTIVE until"))

    done = await run("sam", "revoke", first.id, "--reason", "it scans", "--wait", "60s")
    assert (done.exit_code, done.stdout.startswith(f"{first.id}  REVOKED at")) == (0, True), done.stderr
    assert first.attempt_id not in served.upstream.alive
    again = await run("sam", "revoke", first.id, "--reason", "it scans", "--format", "json")
    assert json.loads(again.stdout)["endCause"] == "REVOKED_BY_OPERATOR"
    assert await listed(run, "leases", "--living") == [second.id]


async def test_a_list_says_that_there_is_more(run: Run, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [await start_task(served.stub(), f"t{number}") for number in range(3)]
    done = await run("dana", "tasks", "--limit", "2", "--format", "json")
    assert [each["id"] for each in json.loads(done.stdout)] == [made[2], made[1]]
    assert "more than these 2" in done.stderr
    monkeypatch.setattr("broker.cli.pages._PAGE", 2)
    done = await run("dana", "tasks", "--format", "json")
    assert ([each["id"] for each in json.loads(done.stdout)], done.stderr) == (made[::-1], "")


async def test_tasks_are_listed_shown_and_completed(run: Run, served: Served) -> None:
    lease = await held(served, ticket="OPS-1")
    other = await start_task(served.stub(OTHER))
    assert await listed(run, "tasks") == [other, lease.task_id]
    assert await listed(run, "tasks", "--agent", ANALYST, "--open") == [lease.task_id]
    assert "OPS-1" in (await run("dana", "task", lease.task_id)).stdout
    done = await run("sam", "complete", lease.task_id, "--reason", "it scans", "--wait", "60s")
    assert done.exit_code == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert (first, second.startswith(f"{lease.id}  REVOKED at")) == (f"{lease.task_id}  COMPLETED", True)
    assert await listed(run, "tasks", "--open") == [other]


async def test_an_agents_words_do_not_paint_the_terminal(run: Run, served: Served) -> None:
    task = await start_task(served.stub(), ticket="\x1b[2J\u202e")
    shown = (await run("dana", "task", task)).stdout
    assert "<U+001B>[2J<U+202E>" in shown
    assert "\x1b" not in shown


async def test_agents_are_listed_and_shown(run: Run, served: Served) -> None:
    await held(served)
    text = (await run("dana", "agents")).stdout.splitlines()
    (line,) = (line for line in text if line.startswith("analyst "))
    assert line.split()[-3:] == ["1", "1", ANALYST]
    told = json.loads((await run("dana", "agent", ANALYST, "--format", "json")).stdout)
    assert (told["entry"], told["ownerName"], told["liveLeases"]) == ("analyst", "Dana Okafor", 1)
    done = await run("dana", "agent", "nobody")
    assert (done.exit_code, "AGENT_NOT_REGISTERED" in done.stderr) == (3, True)


async def test_reloading(run: Run, served: Served) -> None:
    done = await run("sam", "reload")
    assert (done.exit_code, done.stdout) == (0, f"in force sha256:{served.daemon._files.current.digest}\n")
    template = served.root / "deploy" / "templates" / "orders-readonly.yaml"
    private(template, template.read_text() + "surprise: 1\n")
    done = await run("sam", "reload")
    assert (done.exit_code, done.stdout.startswith("refused; still in force is sha256:")) == (1, True)
    assert "orders-readonly.yaml:" in done.stderr
    told = json.loads((await run("sam", "reload", "--format", "json")).stdout)
    assert (told["accepted"], told["deployDigest"]) == (False, served.daemon._files.current.digest)


@pytest.mark.parametrize("words", [("revoke", "L"), ("complete", "T"), ("reload",)])
async def test_who_may_not(run: Run, words: tuple[str, ...]) -> None:
    reason = () if words == ("reload",) else ("--reason", "r")
    done = await run("dana", *words, *reason)
    assert (done.exit_code, "ROLE_REQUIRED" in done.stderr) == (3, True), done.stderr
    if reason:
        assert (await run("sam", *words)).exit_code == 2  # without a reason
