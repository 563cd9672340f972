"""``broker plan register|list|show|confirm|reject``."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from broker.cli.connection import run
from broker.cli.output import clock, format_option, print_json, span, table
from broker.cli.values import Span, Text
from broker.client import AsyncClient, Plan, PlannedAction
from broker.client.spans import parse_span
from broker.clock import SystemClock
from broker.errors import InvalidInput, Reason
from broker.identity.strict_json import NotStrictJson, parse_object

_TEXTS = ("step", "template", "account", "environment", "resource", "ttl")


@click.group()
def plan() -> None:
    """Plans: what a task means to do, said before anything is done.

    A planner registers one, a validator confirms or rejects it, executors get what it says, each step once
    (`broker request --plan-id PLAN --step STEP`). The three are three registry entries.
    """


@plan.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="PLAN.json")
@click.option("--task", "task_id", required=True, metavar="TASK", help="The task it is for.")
@click.option("--valid-for", type=Span(), help="After that it lapses; default: the broker's.")
@click.option("--request-id", default="", help="The same id and content again: the same plan.")
@format_option("text", "json")
def register(file: Path, task_id: str, valid_for: timedelta | None, request_id: str, form: str) -> None:
    """Register a plan. Needs the role planner.

    \b
    {"text": "Count, then repair.",
     "actions": [{"step": "count", "template": "orders-readonly", "account": "shop",
                  "environment": "dev", "resource": "orders", "ttl": "5m", "parameters": {}}]}
    """
    text, actions = read_plan(file)
    show_plan(
        run(lambda client: client.register_plan(task_id, text, actions, valid_for=valid_for, request_id=request_id)),
        form,
    )


def read_plan(file: Path) -> tuple[str, list[PlannedAction]]:
    """Text and actions of a plan file. Raises InvalidInput (FIELD_INVALID) naming what is wrong, and where."""
    try:
        said = parse_object(file.read_bytes())
    except NotStrictJson as error:
        raise _wrong(file, "", str(error)) from None
    if said.keys() != {"text", "actions"} or not isinstance(said["text"], str) or not isinstance(said["actions"], list):
        raise _wrong(file, "", "is not an object of text and actions")
    return said["text"], [_action(file, f"actions[{index}]", each) for index, each in enumerate(said["actions"])]


def _action(file: Path, at: str, said: Any) -> PlannedAction:
    if not isinstance(said, dict):
        raise _wrong(file, at, "is not an object")
    if unknown := sorted(said.keys() - {*_TEXTS, "parameters"}):
        raise _wrong(file, at, f"has {unknown[0]!a}, which an action does not have")
    for name in _TEXTS:
        if not isinstance(said.get(name), str) or not said[name]:
            raise _wrong(file, f"{at}.{name}", "is missing, or no text")
    parameters = said.get("parameters", {})
    if not isinstance(parameters, dict) or not all(isinstance(value, str) for value in parameters.values()):
        raise _wrong(file, f"{at}.parameters", "is not an object of texts")
    texts = {name: said[name] for name in _TEXTS if name != "ttl"}
    return PlannedAction(**texts, ttl=parse_span(said["ttl"], f"{at}.ttl", Reason.TTL_INVALID), parameters=parameters)


def _wrong(file: Path, at: str, what: str) -> InvalidInput:
    where = f"{file.name}: {at}" if at else file.name
    return InvalidInput(
        Reason.FIELD_INVALID,
        f"{where} {what}.",
        hint="`broker plan register --help` shows what a plan looks like.",
        metadata={"file": file.name, "field": at},
    )


@plan.command("list")
@click.option("--task", "task_id", required=True, metavar="TASK", help="Of this task.")
@format_option("text", "json")
def list_(task_id: str, form: str) -> None:
    """List the plans of a task."""
    found = run(lambda client: client.plans(task_id))
    if form == "json":
        print_json(found)
        return
    now = SystemClock().now()
    rows = [(each.id, each.state, clock(each.deadline, now), each.planner, each.digest) for each in found]
    click.echo(table(rows, ("PLAN", "STATE", "UNTIL", "PLANNER", "DIGEST")))


@plan.command()
@click.argument("plan_id", metavar="PLAN")
@format_option("text", "json")
def show(plan_id: str, form: str) -> None:
    """Show a plan: who made it, what it says, and what each step is to get at most."""
    show_plan(run(lambda client: client.plan(plan_id)), form)


def show_plan(plan: Plan, form: str) -> None:
    """One plan, whole."""
    if form == "json":
        print_json(plan)
        return
    now = SystemClock().now()
    click.echo(
        f"{plan.id}  {plan.state} until {clock(plan.deadline, now)}, by {plan.planner} ({plan.planner_principal})"
    )
    if plan.validator:
        click.echo(f"decided by {plan.validator} ({plan.validator_principal}): {plan.reason}".rstrip(": "))
    click.echo(f"digest {plan.digest}\n\n{printable(plan.text)}\n")
    rows = [
        (each.step, each.template, each.account, each.environment, each.access, span(each.ttl), _what(each))
        for each in plan.actions
    ]
    click.echo(table(rows, ("STEP", "TEMPLATE", "ACCOUNT", "ENVIRONMENT", "ACCESS", "TTL", "RESOURCE")))


def printable(text: str) -> str:
    """What an agent wrote, without anything that would move a terminal's cursor or reverse its text."""
    return "".join(each if each.isprintable() or each == "\n" else "\N{REPLACEMENT CHARACTER}" for each in text)


def _what(action: PlannedAction) -> str:
    return " ".join([action.resource, *(f"{name}={value}" for name, value in sorted(action.parameters.items()))])


async def _decide(client: AsyncClient, plan_id: str, digest: str, reason: str, *, confirm: bool) -> Plan:
    found = await client.plan(plan_id)
    if digest and found.digest != digest:
        raise InvalidInput(
            Reason.PLAN_DIGEST_MISMATCH,
            f"plan {plan_id} has the digest {found.digest}, not the one given.",
            hint="Look at it again: broker plan show.",
            metadata={"planId": plan_id, "digest": found.digest},
        )
    return await client.validate_plan(found, confirm=confirm, reason=reason)


_plan_argument = click.argument("plan_id", metavar="PLAN")
_digest_option = click.option("--digest", required=True, help="The digest of what you have looked at.")


@plan.command()
@_plan_argument
@_digest_option
@click.option("--reason", default="", type=Text(), metavar="TEXT|@FILE", help="Why.")
@format_option("text", "json")
def confirm(plan_id: str, digest: str, reason: str, form: str) -> None:
    """Confirm a plan. Needs the role validator."""
    show_plan(run(lambda client: _decide(client, plan_id, digest, reason, confirm=True)), form)


@plan.command()
@_plan_argument
@_digest_option
@click.option("--reason", required=True, type=Text(), metavar="TEXT|@FILE", help="Why.")
@format_option("text", "json")
def reject(plan_id: str, digest: str, reason: str, form: str) -> None:
    """Reject a plan. Needs the role validator."""
    show_plan(run(lambda client: _decide(client, plan_id, digest, reason, confirm=False)), form)
