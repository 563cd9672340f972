"""What people see of connectors, and examinations of upstreams that hang, break and are asked by many at once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.errors import NotFound, Reason
from broker.identity.agent import Registry
from broker.identity.operator import LOGIN, Operator, Role
from broker.issuance.caller import OperatorCaller
from broker.issuance.connectors import ConnectorDesk
from broker.issuance.verdicts import doubts_of_template
from broker.ports.connectors import Connector, Doubt, Severity
from broker.ports.deploys import ConnectorSpec, DeploySet
from tests.clock import START, ManualClock
from tests.connectors.fake import FakeConnector, contract
from tests.issuance.world import PEOPLE, gated_policies, template

WARNING = Doubt(Severity.WARNING, "It is old.", "Renew it.")
ERROR = Doubt(Severity.ERROR, "It is wide.", "Make it narrow.")
LONG = timedelta(minutes=1)


def world(*names: str, within: timedelta = LONG) -> tuple[ConnectorDesk, OperatorCaller, dict[str, FakeConnector]]:
    """A set with connectors of these names, of which those without a leading minus run."""
    clock = ManualClock()
    running = {name: FakeConnector(clock, name=name) for name in names if not name.startswith("-")}
    specs = {name: ConnectorSpec(name, "fake", {}, "d" * 64) for name in (each.lstrip("-") for each in names)}
    templates = {"orders-read": template()}
    deploy = DeploySet("d" * 64, Registry([]), PEOPLE, templates, gated_policies(), specs)
    viewer = Operator(PEOPLE["ada"], "ada", LOGIN)
    caller = OperatorCaller("t", viewer, frozenset({Role.VIEWER}), deploy, START)
    connectors: dict[str, Connector] = dict(running)
    return ConnectorDesk(connectors.get, clock, within), caller, running


def test_what_does_not_run_is_shown_as_that() -> None:
    desk, caller, running = world("fake", "-broken")
    broken, fake = desk.list(caller)
    assert (broken.spec.name, broken.contract) == ("broken", None)
    assert (fake.contract, fake.templates) == (running["fake"].contract, ("orders-read",))
    assert desk.get(caller, "fake") == fake


@pytest.mark.parametrize("name", ["nothing", "FAKE", "\x1b[31m", "../fake"])
async def test_a_name_that_is_none_is_told_with_those_that_are(name: str) -> None:
    desk, caller, running = world("fake")
    for asked in (desk.get, desk.examine):
        with pytest.raises(NotFound) as refused:
            found: Any = asked(caller, name)
            await found
        assert refused.value.reason is Reason.CONNECTOR_NOT_FOUND
        assert refused.value.hint == "There is: fake."
        assert "\x1b" not in str(refused.value)
    assert not running["fake"].calls


async def test_errors_come_first() -> None:
    desk, caller, running = world("fake")
    running["fake"].doubts = (WARNING, ERROR)
    (found,) = await desk.examine(caller, "fake")
    assert (found.doubts, found.at) == ((ERROR, WARNING), START)


async def test_one_that_hangs_and_one_that_does_not_run_keep_no_other_from_being_examined() -> None:
    desk, caller, running = world("fake", "hangs", "-broken", within=timedelta(milliseconds=1))
    running["hangs"].examination_hangs = True
    broken, fake, hangs = await desk.examine(caller, "")
    assert [each.severity for each in broken.doubts] == [Severity.ERROR]
    assert "does not run" in broken.doubts[0].what
    assert fake.doubts == ()
    assert "did not answer" in hangs.doubts[0].what
    assert hangs.doubts[0].severity is Severity.ERROR


async def test_an_adapter_that_breaks_is_an_error_and_says_nothing_of_the_upstreams_words() -> None:
    desk, caller, running = world("fake")

    async def broken() -> tuple[Doubt, ...]:
        raise RuntimeError("canary-secret")

    running["fake"].examine = broken  # type: ignore[method-assign]
    (found,) = await desk.examine(caller, "fake")
    assert [each.severity for each in found.doubts] == [Severity.ERROR]
    assert "canary" not in repr(found)


async def test_many_who_ask_at_once_have_the_upstream_asked_once() -> None:
    desk, caller, running = world("fake")
    fake = running["fake"]
    fake.examination_hangs = True
    first, second = (asyncio.ensure_future(desk.examine(caller, name)) for name in ("fake", ""))
    await fake.hanging.wait()
    third = asyncio.ensure_future(desk.examine(caller, "fake"))
    await asyncio.sleep(0)
    first.cancel()  # who leaves takes nothing away from the others
    await asyncio.sleep(0)
    assert fake.calls == [("examine", "")]
    assert not second.done()
    for each in (second, third, *desk._under_way.values()):
        each.cancel()
    await asyncio.gather(first, second, third, return_exceptions=True)
    fake.examination_hangs = False
    (found,) = await desk.examine(caller, "fake")  # and nothing is left of it
    assert found.doubts == ()


@pytest.mark.parametrize(
    ("longest", "found"),
    [
        (timedelta(seconds=1), []),  # the floor
        (timedelta(milliseconds=999), [Severity.ERROR]),
        (timedelta(hours=1), []),  # the ceiling
        (timedelta(hours=1, seconds=1), [Severity.WARNING]),
    ],
)
async def test_what_a_template_offers_and_its_connector_cannot_do(longest: timedelta, found: list[Severity]) -> None:
    offered = template(max_ttl=longest)
    assert [each.severity for each in doubts_of_template(offered, contract())] == found
    desk, caller, _ = world("fake")
    caller = replace(caller, deploy=replace(caller.deploy, templates={offered.name: offered}))
    (examined,) = await desk.examine(caller, "fake")
    assert [each.severity for each in examined.doubts] == found
