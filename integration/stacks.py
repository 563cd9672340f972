"""The embedded default as a whole, brokerd a process of its own, with the deploy set changed where a story needs it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from broker.cli.demo.narrator import Narrator
from broker.cli.demo.world import World
from broker.clock import SystemClock
from broker.deployfiles.load import load
from broker.dev.configuration import render
from broker.dev.deploy_copy import DeployCopy, shipped_set
from broker.dev.stack import DevStack
from broker.dev.state import StateDirectory


@asynccontextmanager
async def stack_world(
    state_dir: Path, binary: Path | None, change: Callable[[Path], None] = lambda deploy: None
) -> AsyncIterator[World]:
    """Everything, with nothing told to anybody. ``change`` is given the private copy of ``deploy/dev`` first."""
    state = StateDirectory(state_dir)
    state.acquire()
    copy = DeployCopy(shipped_set(), state.path / "deploy", load)
    copy.refresh()
    change(copy.current)
    deploy = load(copy.current)
    stack = DevStack(
        state,
        copy.current,
        agents=[each.spiffe_id for each in deploy.registry],
        people=[*deploy.people.values()],
        clock=SystemClock(),
        render_config=render,
        minio=binary,
    )
    try:
        async with stack, World(stack, Narrator(lambda _: None)) as made:
            yield made
    finally:
        await stack.destroy()
