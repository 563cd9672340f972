"""The ``broker demo`` command: a fresh state directory, the story, and nothing left behind."""

from __future__ import annotations

import asyncio
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click
import psutil

from broker.cli.demo.narrator import Narrator, StepFailed
from broker.cli.demo.story import STORY, play
from broker.cli.demo.world import World
from broker.cli.settings import EXIT_WRONG
from broker.clock import SystemClock
from broker.deployfiles.load import load
from broker.dev.configuration import render
from broker.dev.deploy_copy import DeployCopy, shipped_set
from broker.dev.minio import built
from broker.dev.shell import forget_other_servers
from broker.dev.stack import DevStack
from broker.dev.state import StateDirectory
from broker.dev.webhook_receiver import WebhookReceiver
from broker.errors import BrokerError

_LOGS = ("brokerd.log", "openbao/openbao.log", "postgres/postgres.log", "aws/moto.log", "minio/minio.log")


@click.command()
@click.option("--keep", is_flag=True, help="Keep the state directory, with ledger and logs, although all went well.")
def demo(keep: bool) -> None:
    """See the main story on real parts: OpenBao, PostgreSQL, SVIDs, attacks, crashes. Takes about a minute.

    Every line with `ok` was checked. Exits 0 only if every step was; otherwise 1, saying what failed and where
    the logs are. Nothing is left running, whatever happens.
    """
    forget_other_servers()
    raise SystemExit(asyncio.run(_demo(keep)))


async def _demo(keep: bool) -> int:
    tell = Narrator(click.echo)
    begun = time.perf_counter()
    state = StateDirectory(Path(tempfile.mkdtemp(prefix="jit-broker-demo-")))
    kept = True
    receiver = WebhookReceiver(state.path / "webhook.secret")
    await receiver.start()
    stack = _stack(state, receiver)
    try:
        with _interruptible():
            await _tell(stack, tell, receiver)
        kept = keep
    except (StepFailed, BrokerError) as error:
        # One line, however many the cause had: people grep for it.
        why = " ".join(str(error).split())
        click.echo(f"\nFAILED  {why}", err=True)
        return EXIT_WRONG
    except asyncio.CancelledError:
        kept = keep
        click.echo("\nINTERRUPTED  the story was not told to its end.", err=True)
        return EXIT_WRONG
    finally:
        await stack.stop()
        await receiver.stop()
        if kept:
            click.echo(f"state: {state.path}; logs: {', '.join(_LOGS)}", err=True)
        else:
            await stack.destroy()
    tell.line(f"\nAll {len(STORY)} steps came true: {tell.checks} checks in {time.perf_counter() - begun:.0f} s.")
    return 0


def _stack(state: StateDirectory, receiver: WebhookReceiver) -> DevStack:
    """The embedded default with the deploy set that is shipped, whatever directory the demo is run in."""
    state.acquire()
    copy = DeployCopy(shipped_set(), state.path / "deploy", load)
    copy.refresh()
    deploy = load(copy.current)
    agents = [agent.spiffe_id for agent in deploy.registry]
    people = [*deploy.people.values()]
    return DevStack(
        state,
        copy.current,
        agents=agents,
        people=people,
        clock=SystemClock(),
        render_config=partial(render, notify=receiver),
        minio=built(),
    )


async def _tell(stack: DevStack, tell: Narrator, receiver: WebhookReceiver) -> None:
    begun = time.perf_counter()
    s3 = "moto as a double of AWS" if built() is None else "MinIO, moto as a double of AWS"
    tell.line(f"Starting PostgreSQL, OpenBao, a SPIFFE trust domain, {s3}, and brokerd ...")
    async with stack:
        tell.line(f"... ready in {time.perf_counter() - begun:.1f} s, all of it on loopback.")
        async with World(stack, tell, receiver=receiver) as world:
            await play(world)
        processes = _running()
    tell.line("")
    tell.checked(
        bool(processes) and not (left := _running()),
        f"Everything is stopped: of {len(processes)} processes none is left.",
        f"{len(left) if processes else 0} of {len(processes)} processes are left.",
    )


def _running() -> list[psutil.Process]:
    """Every process below this one that still does something."""
    family = psutil.Process().children(recursive=True)
    return [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


@contextmanager
def _interruptible() -> Iterator[None]:
    """The first signal ends the story where it is; what is then tidied up is not interrupted."""
    loop, story = asyncio.get_running_loop(), asyncio.current_task()
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    told = False

    def end() -> None:
        nonlocal told
        if not told and story is not None:
            told = story.cancel()

    for number in signals:
        loop.add_signal_handler(number, end)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
