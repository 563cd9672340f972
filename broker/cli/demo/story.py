"""The story: its steps in order, and playing them until one does not come true."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import psycopg

from broker.cli.demo.approval import people_approve_it
from broker.cli.demo.break_glass import glass_is_broken
from broker.cli.demo.canary import contract_is_measured
from broker.cli.demo.completion import (
    completion_defeats_a_reconnect_loop,
    completion_ends_it,
    completion_takes_what_it_made,
)
from broker.cli.demo.crash import orphan_is_swept
from broker.cli.demo.deadlines import time_ends_it, time_ends_it_without_the_broker
from broker.cli.demo.narrator import StepFailed
from broker.cli.demo.pipeline import only_what_was_planned
from broker.cli.demo.reading import reads_but_cannot_write
from broker.cli.demo.refusals import hides_from_others, refuses_with_reasons
from broker.cli.demo.s3 import s3_session
from broker.cli.demo.suspension import suspension_kills_it
from broker.cli.demo.trail import audit_verifies
from broker.cli.demo.world import World
from broker.errors import BrokerError

# No step may hang; the longest, the sweep of an orphan, takes about 15 s.
_STEP_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Step:
    """One thing the story shows. ``play`` raises :class:`StepFailed` where it does not come true."""

    title: str
    play: Callable[[World], Awaitable[None]]


STORY: Sequence[Step] = (
    Step("An agent proves who it is, gets a login, reads, and cannot write", reads_but_cannot_write),
    Step("What is outside the template, or outside policy, is refused", refuses_with_reasons),
    Step("Another agent cannot see the lease, nor complete the task", hides_from_others),
    Step("Completing the task ends the login, and the open session", completion_ends_it),
    Step("A reconnect loop does not survive it", completion_defeats_a_reconnect_loop),
    Step("Nor does an agent that made a table", completion_takes_what_it_made),
    Step("A 3-second TTL that nobody completes is over after 3 seconds", time_ends_it),
    Step("The same with brokerd killed right after issuing", time_ends_it_without_the_broker),
    Step("A write in production waits for a person, and their yes is good for one credential", people_approve_it),
    Step("A planner, a validator and an executor: what was not planned is not given", only_what_was_planned),
    Step("An operator suspends an agent: its login is dead, and it gets no other", suspension_kills_it),
    Step("In an emergency a person passes over approval: everybody is told, and unreviewed it blocks", glass_is_broken),
    Step("The broker measures its own promise, with a credential of its own that it revokes", contract_is_measured),
    Step("An STS session: held to its policy, and ended as its connector's contract says", s3_session),
    Step("brokerd is killed while OpenBao's answer is on its way: the orphan is swept", orphan_is_swept),
    Step("The audit trail verifies, and a flipped byte is located", audit_verifies),
)


async def play(world: World, steps: Sequence[Step] = STORY) -> None:
    """Every step, in order. Raises :class:`StepFailed` at the first that does not come true."""
    for number, step in enumerate(steps, start=1):
        world.tell.title(number, step.title)
        begun, checks = time.perf_counter(), world.tell.checks
        try:
            async with asyncio.timeout(_STEP_SECONDS):
                await step.play(world)
        except (StepFailed, BrokerError, psycopg.Error, OSError, TimeoutError) as error:
            raise StepFailed(f"step {number}, {step.title}: {_told(error)}") from error
        if world.tell.checks == checks:
            raise StepFailed(f"step {number}, {step.title}: nothing was checked.")
        world.tell.told(f"({time.perf_counter() - begun:.1f} s)")


def _told(error: Exception) -> str:
    if isinstance(error, StepFailed):
        return str(error)
    if isinstance(error, TimeoutError) and not str(error):
        return f"it took longer than {_STEP_SECONDS:g} s."
    return f"{type(error).__name__}: {error}"
