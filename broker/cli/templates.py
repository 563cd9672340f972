"""``broker templates``: what can be asked for, and how."""

from __future__ import annotations

import click

from broker.cli import contracts
from broker.cli.connection import run
from broker.cli.output import format_option, print_json, span, table
from broker.client import ParameterSpec, ScopeTemplate
from broker.errors import NotFound, Reason


@click.command()
@click.argument("name", required=False)
@format_option("text", "json")
def templates(name: str | None, form: str) -> None:
    """The ways to ask that operators have written; with NAME, one of them in full.

    A template says which accounts, environments and resources it covers, the longest TTL, which fields it
    makes mandatory, and how, and how fast, what it grants can be ended.
    """
    found = run(lambda client: client.templates())
    if name is None:
        print_json(found) if form == "json" else click.echo(_overview(found))
        return
    for template in found:
        if template.name == name:
            print_json(template) if form == "json" else click.echo(_in_full(template))
            return
    raise NotFound(
        Reason.TEMPLATE_NOT_FOUND,
        f"There is no template {name!a}.",
        hint="`broker templates` lists those in force.",
        metadata={"template": name},
    )


def _overview(found: tuple[ScopeTemplate, ...]) -> str:
    rows = [
        (
            each.name,
            each.access,
            " ".join(each.environments),
            span(each.max_ttl),
            each.contract.contract_class if each.contract else "",
            each.description,
        )
        for each in found
    ]
    return table(rows, ("TEMPLATE", "ACCESS", "ENVIRONMENTS", "MAX TTL", "ENDS", "DESCRIPTION"))


def _in_full(template: ScopeTemplate) -> str:
    resource = f": {template.resource.expectation}" if template.resource else ""
    lines = [
        template.name,
        f"  {template.description}",
        f"  --account       one of {', '.join(template.accounts)}",
        f"  --environment   one of {', '.join(template.environments)}",
        f"  --resource      {template.resource.type if template.resource else ''}{resource}",
        f"  --ttl           up to {span(template.max_ttl)}",
        *(["  --wrap          at most the TTL"] if template.wrapping else []),
        *(_parameter(each) for each in template.parameters),
        *(f"  --{each.replace('_', '-')}  is mandatory" for each in template.required_fields),
        f"  grants          {template.access}: {', '.join(template.actions)}",
        f"  changes         {template.change_type}, {template.reversibility}; reaches one {template.blast_radius}",
        f"  data            {template.sensitivity}",
        f"  production      {'promoted' if template.promoted else 'not promoted'}",
    ]
    promised = [f"  {line}" for line in contracts.lines(template.contract)] if template.contract else []
    return "\n".join([*lines, f"  connector       {template.connector}", *promised])


def _parameter(each: ParameterSpec) -> str:
    if each.from_identity:
        return f"  {each.name}  is the {each.from_identity} of your SPIFFE ID ({each.type}: {each.expectation})"
    return f"  --param {each.name}=...  {each.type}: {each.expectation}"
