"""``broker dev``: everything on this machine, for a person at a terminal, until Ctrl-C.

Belongs here: what is printed, and following the person's edits of the deploy set. What is started, and
how it is stopped whatever happens, is ``broker/dev/stack.py``.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
from watchfiles import awatch

from broker.clock import SystemClock
from broker.deployfiles.load import load
from broker.dev.aws_double import DISCLAIMER as AWS_DISCLAIMER
from broker.dev.configuration import render
from broker.dev.deploy_copy import DeployCopy, shipped_set
from broker.dev.identity_provider import CLIENT_ID, DISCLAIMER
from broker.dev.minio import NOT_BUILT, built
from broker.dev.shell import forget_other_servers
from broker.dev.stack import DevFacts, DevStack
from broker.dev.state import StateDirectory
from broker.files import Problems
from broker.identity.agent import Agent
from broker.ports.deploys import DeploySet

# brokerd looks for a swap once a second; connectors may take a moment to be made.
_LOOKS, _LOOK_SECONDS = 100, 0.05
# Editors save in several steps: wait until it has been quiet for a moment.
_QUIET_MS = 200
_FIRST_AGENT = "analyst"
# In double quotes for the shell; there is nothing in it that a shell would expand.
_COUNT = "\"import psycopg; print(psycopg.connect().execute('select count(*) from orders').fetchone())\""
_EXAMPLE_TEMPLATE = "orders-readonly"


@click.command()
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".broker-dev"),
    show_default=True,
    help="Everything it keeps: ledger, keys, data, logs. Remove it to begin anew.",
)
@click.option(
    "--deploy",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=None,
    help="The operators' files, watched while it runs. [default: the checkout's deploy/dev, or the package's copy]",
)
def dev(state: Path, deploy: Path | None) -> None:
    """Run everything on this machine: OpenBao, PostgreSQL, a SPIFFE trust domain, a double of AWS, and brokerd.

    It prints what to paste in another terminal to be one of the agents. Deploy files are taken in as you save them;
    a set with problems is told, and the last good one stays. Ctrl-C leaves nothing running. Loopback only.
    """
    forget_other_servers()
    held = StateDirectory(state)
    held.acquire()
    copy = DeployCopy(
        shipped_set() if deploy is None else deploy.resolve(), held.path / "deploy", load, shown=_shown(deploy)
    )
    first = copy.refresh()
    if first is None:
        raise AssertionError("the first set is always a new one")
    _keep_out_of_git(held.path)
    click.echo("starting PostgreSQL, OpenBao, moto and brokerd ...")
    asyncio.run(_run(held, copy, first))
    click.echo(f"stopped; nothing is left running. State: {_relative(held.path)}")


async def _run(state: StateDirectory, copy: DeployCopy, first: DeploySet) -> None:
    agents = sorted({agent.spiffe_id for agent in first.registry}, key=str)
    people = [first.people[key] for key in sorted(first.people)]
    stack = DevStack(
        state, copy.current, agents=agents, people=people, clock=SystemClock(), render_config=render, minio=built()
    )
    following: list[asyncio.Task[None]] = []

    def ready(facts: DevFacts) -> None:
        click.echo("\n".join(_greeting(facts, copy, first)))
        following.append(asyncio.create_task(_follow(copy, stack)))

    try:
        await stack.run_until_signal(ready)
    finally:
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)


# --------------------------------------------------------------------------- following edits


async def _follow(copy: DeployCopy, stack: DevStack) -> None:
    """Take in what changes, for as long as it runs."""
    facts = stack.facts()
    result, good = facts.ledger.parent / "reload.json", True
    async for _ in awatch(copy.source, watch_filter=None, debounce=_QUIET_MS, step=_QUIET_MS):
        before = _last_word(result)
        try:
            taken = await asyncio.to_thread(copy.refresh)
        except Problems as found:
            click.echo(f"\n{found.message}\nthe last good set stays in force.", err=True)
            good = False
            continue
        if taken is None and not good:
            click.echo("\nthe deploy set is again the one in force.")
        good = True
        if taken is not None:
            if facts.issuer:
                issuer = facts.issuer_known_as
                stack.identity_provider.know(each for each in taken.people.values() if each.issuer == issuer)
            told = await _next_word(result, before)
            click.echo("\n".join(("", *_outcome(told, taken, facts))))


def _outcome(told: _Word | None, taken: DeploySet, facts: DevFacts) -> list[str]:
    """What brokerd made of the new set, in its own words."""
    counts = f"{len(taken.registry)} agents, {len(taken.templates)} templates, {len(taken.policies)} policies"
    if told is None:
        return [f"brokerd has not taken in the new deploy set ({counts}); see {facts.state / 'brokerd.log'}"]
    if told.problems:
        return ["brokerd refuses the new deploy set; the last good one stays in force:", *told.problems]
    new = [agent for agent in taken.registry if agent.spiffe_id not in facts.endpoints]
    return [
        f"new deploy set in force: {counts}",
        *(f"{agent.spiffe_id} is registered; it gets a socket when you start `broker dev` again" for agent in new),
    ]


@dataclass(frozen=True, slots=True)
class _Word:
    """What brokerd last said about its deploy set (``reload.json`` in its state directory)."""

    generation: int
    problems: tuple[str, ...]


def _last_word(result: Path) -> _Word:
    told = json.loads(result.read_text())
    return _Word(told["generation"], tuple(told["problems"]))


async def _next_word(result: Path, before: _Word) -> _Word | None:
    """What brokerd says next; None if it says nothing in time."""
    for _ in range(_LOOKS):
        if (word := _last_word(result)).generation != before.generation:
            return word
        await asyncio.sleep(_LOOK_SECONDS)
    return None


# --------------------------------------------------------------------------- what is printed


def _greeting(facts: DevFacts, copy: DeployCopy, first: DeploySet) -> Iterator[str]:
    """Addresses, then what to paste. No secret: those are in 0600 files of the state directory."""
    target = facts.openbao.target
    agents = sorted(first.registry, key=lambda agent: (_name(agent) != _FIRST_AGENT, str(agent.spiffe_id)))
    yield ""
    yield f"brokerd     {facts.api_address}, people {facts.admin_address}, metrics http://127.0.0.1:{facts.ops_port}/metrics"
    yield f"PostgreSQL  {target.host}:{target.port}, database {target.database}"
    yield f"OpenBao     {facts.openbao.address}"
    yield f"AWS         {facts.aws.endpoint}"
    yield from (f"            {line}" for line in textwrap.wrap(AWS_DISCLAIMER, 88))
    yield f"S3          {NOT_BUILT if facts.minio is None else f'{facts.minio.endpoint} (MinIO)'}"
    yield f"state       {_relative(facts.state)} (keys, ledger, logs)"
    yield f"deploy      {copy.shown}, watched: save, and it is in force, or you are told why not"
    if not copy.source.is_relative_to(Path.cwd()):
        yield f"            to change it: cp -r {shlex.quote(str(copy.source))} deploy, then broker dev --deploy deploy"
    yield ""
    if not agents:
        # A pattern stands for any number of workloads; which of them should get a socket is not known.
        yield "No agent is registered by an exact id, so there is nobody to be. Add an agents/*.yaml with a spiffe_id,"
        yield "and start `broker dev` again."
        return
    yield "To be an agent, paste this in another terminal:"
    yield ""
    yield from _exports(facts, agents[0])
    yield ""
    yield "and then, for example:"
    yield ""
    yield "  broker whoami"
    yield "  broker templates"
    if _EXAMPLE_TEMPLATE in first.templates:
        yield f"  broker exec --template {_EXAMPLE_TEMPLATE} --account dev --environment dev --resource orders \\"
        yield "      --ttl 5m --intent 'count the orders' -- \\"
        yield f"      {_python()} -c {_COUNT}"
    yield "  broker leases list"
    yield ""
    yield from _others(facts, agents[1:])
    yield from _people(facts, first)
    yield "A socket is its agent: whoever may open it is that agent. This is no attestation; SPIRE attests."
    yield "Ctrl-C stops everything."


def _exports(facts: DevFacts, agent: Agent) -> Iterator[str]:
    """The environment of ``agent``, and the way to this very ``broker``."""
    if not _on_path():
        yield f'  export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"'
    yield f"  export BROKER_ADDRESS={facts.api_address} BROKER_SERVER_NAME={facts.broker_dns_name}"
    yield f"  {_export(facts, agent)}"


def _others(facts: DevFacts, agents: Iterable[Agent]) -> Iterator[str]:
    for agent in agents:
        yield f"To be {_name(agent)} ({agent.description.rstrip('.')}):"
        yield ""
        yield f"  {_export(facts, agent)}"
        yield ""


def _people(facts: DevFacts, first: DeploySet) -> Iterator[str]:
    if not facts.issuer:
        return
    yield "To operate the broker as one of its people:"
    yield ""
    yield f"  export BROKER_ADMIN_ADDRESS={facts.admin_address} BROKER_ADMIN_BUNDLE={shlex.quote(str(facts.bundle))}"
    yield f"  export BROKER_SERVER_NAME={facts.broker_dns_name}"
    yield f"  export BROKER_OIDC_ISSUER={facts.issuer} BROKER_OIDC_CLIENT_ID={CLIENT_ID}"
    yield "  broker login"
    yield "  broker operator whoami"
    yield ""
    for person in sorted(first.people.values(), key=lambda each: each.subject):
        yield f"  {person.subject}: {', '.join(sorted(person.groups)) or 'no group'}"
    yield from textwrap.wrap(f"{facts.issuer}: {DISCLAIMER}", 100)
    yield ""


def _export(facts: DevFacts, agent: Agent) -> str:
    return f"export SPIFFE_ENDPOINT_SOCKET={shlex.quote(facts.endpoints[agent.spiffe_id])}"


def _name(agent: Agent) -> str:
    return agent.spiffe_id.path.rpartition("/")[2]


def _on_path() -> bool:
    found = shutil.which("broker")
    return found is not None and Path(found).parent == Path(sys.executable).parent


def _python() -> str:
    """Our own python, which has psycopg: by its short name where the path that was told leads to it."""
    name = Path(sys.executable).name
    found = shutil.which(name)
    told = not _on_path() or (found is not None and Path(found) == Path(sys.executable))
    return name if told else sys.executable


def _shown(deploy: Path | None) -> Path:
    return _relative(shipped_set()) if deploy is None else deploy


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _keep_out_of_git(state: Path) -> None:
    """As virtual environments do: keys must not be committed by a hasty ``git add .``."""
    ignore = state / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
