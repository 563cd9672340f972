"""A whole access review against a brokerd: report, sign-off, the next report, and what is overdue meanwhile."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import structlog

from tests.api.served import Served, people_changes, serve
from tests.cli.test_admin import Run, run

__all__ = ["run"]


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(io.StringIO()))
    async with serve(tmp_path, access_reviews={"every": "90d"}, **people_changes(tmp_path)) as running:
        yield running
    structlog.reset_defaults()


async def overdue(served: Served) -> bool:
    """As /metrics tells it; and it never closes /readyz."""
    base = f"http://127.0.0.1:{served.daemon._config.listen.operations.port}"
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{base}/readyz") as ready:
            assert ready.status == 200
        async with http.get(f"{base}/metrics") as metrics:
            lines = (await metrics.text()).splitlines()
    (value,) = (line.rpartition(" ")[2] for line in lines if line.startswith("broker_access_review_overdue "))
    return bool(float(value))


async def test_a_review_from_report_to_report(run: Run, served: Served, tmp_path: Path) -> None:
    ledger, path = served.root / "state" / "ledger.sqlite3", tmp_path / "report.json"
    made = ("access", "report", "--deploy", str(served.root / "deploy"), "--database", str(ledger))
    assert await overdue(served)
    done = await run("kim", *made, "--output", str(path))
    assert (done.exit_code, "broker access sign-off --report" in done.stderr) == (0, True)
    signing = ("access", "sign-off", "--report", str(path), "--findings", "The executor is too wide.")

    done = await run("sam", *signing)
    assert (done.exit_code, "ROLE_REQUIRED" in done.stderr) == (3, True)
    assert await overdue(served)

    done = await run("kim", *signing)
    assert (done.exit_code, "the next review is due" in done.stderr) == (0, True), done.stderr
    assert not await overdue(served)

    text = (await run("kim", *made, "--previous", str(path))).stdout
    assert "last signed off" in text and 'it was found: "The executor is too wide."' in text
    assert "Nothing changed since the last review." in text
    story = await run("kim", "audit", "show", "--database", str(ledger), "--type", "access_review.")
    assert "signed off the access report" in story.stdout and "The executor is too wide." in story.stdout


async def test_only_what_is_in_force_and_as_it_was_made_is_signed_off(run: Run, served: Served, tmp_path: Path) -> None:
    ledger, path = served.root / "state" / "ledger.sqlite3", tmp_path / "report.json"
    agent = served.root / "deploy" / "agents" / "analyst.yaml"
    agent.write_text(agent.read_text().replace("[dev, staging]", "[dev]"))  # not reloaded: not in force
    made = ("access", "report", "--deploy", str(served.root / "deploy"), "--database", str(ledger))
    assert (await run("kim", *made, "--output", str(path))).exit_code == 0
    signing = ("access", "sign-off", "--report", str(path), "--findings", "Fine.")
    done = await run("kim", *signing)
    assert (done.exit_code, "ACCESS_REPORT_STALE" in done.stderr) == (3, True)
    report = json.loads(path.read_text())
    report["agents"] = report["agents"][1:]
    path.write_text(json.dumps(report))
    done = await run("kim", *signing)
    assert (done.exit_code, "was changed after it was made" in done.stderr) == (2, True)
    assert await overdue(served)
