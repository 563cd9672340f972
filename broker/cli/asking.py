"""What a credential is asked for with: one option for each field of the request, shared by request and exec."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import wraps
from typing import Any, TypeVar

import click

from broker.cli.agent_key import AgentKey
from broker.cli.values import Pair, Span, Text
from broker.scope.request import AccessRequest

F = TypeVar("F", bound=Callable[..., Any])

_TEXT = "TEXT|@FILE"
_OPTIONS = (
    click.option(
        "--template", required=True, metavar="NAME", help="The scope template; `broker templates` lists them."
    ),
    click.option("--account", required=True, help="The upstream account."),
    click.option("--environment", required=True, help="The environment."),
    click.option("--resource", required=True, help="The resource."),
    click.option("--ttl", required=True, type=Span(), help="For how long: 90s, 5m, 1h30m. There is no renewal."),
    click.option(
        "--param", "parameters", multiple=True, type=Pair(), metavar="NAME=VALUE", help="A parameter; repeatable."
    ),
    click.option("--step", default="", help="The step of the task."),
    click.option("--intent", default="", type=Text(), metavar=_TEXT, help="What you mean to do."),
    click.option("--reason", default="", type=Text(), metavar=_TEXT, help="Why."),
    click.option("--ticket", default="", type=Text(), metavar=_TEXT, help="The ticket."),
    click.option("--prompt", default="", type=Text(), metavar=_TEXT, help="The prompt that led here."),
    click.option("--tool-call", default="", type=Text(), metavar=_TEXT, help="The tool call that needs it."),
    click.option("--plan", default="", type=Text(), metavar=_TEXT, help="The plan, in words."),
    click.option("--plan-id", default="", metavar="PLAN", help="The registered plan that --step is a step of."),
    click.option("--delegation", "delegation_id", default="", metavar="DELEGATION", help="The delegation to redeem."),
    click.option(
        "--public-key",
        "subject_public_key",
        default="",
        type=Text(),
        metavar="@FILE",
        help="A key of yours to be certified: a PKCS #10 request that asks for no names, or a .pub file of OpenSSH.",
    ),
    click.option(
        "--wrap",
        type=Span(),
        metavar="SPAN",
        help="Let the server keep it this long for one reader, and deliver what unwraps it there, once.",
    ),
    click.option("--request-id", default="", help="The same id and content again replaces the credential."),
)


@dataclass(frozen=True, slots=True)
class Asking:
    """The values of those options."""

    template: str
    account: str
    environment: str
    resource: str
    ttl: timedelta
    parameters: Mapping[str, str]
    step: str
    intent: str
    reason: str
    ticket: str
    prompt: str
    tool_call: str
    plan: str
    plan_id: str
    delegation_id: str
    subject_public_key: str
    wrap: timedelta | None
    request_id: str

    def of_key(self, key: AgentKey | None) -> Asking:
        """The same, for a key that was made for it. Raises a usage error where another was named."""
        if key is None:
            return self
        if self.subject_public_key:
            raise click.UsageError("--public-key is a key that you have, --new-key makes one: say one of them.")
        return replace(self, subject_public_key=key.public)

    def under(self, task_id: str, new_id: Callable[[], str]) -> AccessRequest:
        """The request, under a task."""
        return AccessRequest(
            request_id=self.request_id or new_id(),
            template=self.template,
            task_id=task_id,
            account=self.account,
            environment=self.environment,
            resource=self.resource,
            ttl=self.ttl,
            parameters=self.parameters,
            step=self.step,
            intent=self.intent,
            reason=self.reason,
            ticket=self.ticket,
            prompt=self.prompt,
            tool_call=self.tool_call,
            plan=self.plan,
            plan_id=self.plan_id,
            delegation_id=self.delegation_id,
            subject_public_key=self.subject_public_key,
            wrap=self.wrap,
        )


def asking_options(command: F) -> F:
    """Adds the options; ``command`` gets one argument ``asked`` for all of them."""

    @wraps(command)
    def collected(**given: Any) -> Any:
        pairs: tuple[tuple[str, str], ...] = given["parameters"]
        if len(dict(pairs)) != len(pairs):
            raise click.BadParameter("a parameter is given twice.", param_hint="--param")
        mine = {name: given.pop(name) for name in Asking.__dataclass_fields__}
        return command(asked=Asking(**{**mine, "parameters": dict(pairs)}), **given)

    for option in reversed(_OPTIONS):
        collected = option(collected)
    return collected  # type: ignore[return-value]
