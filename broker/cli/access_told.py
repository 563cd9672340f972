"""An access report in lines for people: what changed first, then owners, then agent by agent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from broker.approval.inert import inert
from broker.audit.story import short
from broker.cli.output import moment_ms
from broker.entitlement.changes import Change, Gravity
from broker.policy.decision import Effect

_BESIDE = {
    "gone": "agents that are registered no more",
    "people": "people, by break-glass",
    "own": "the broker itself, to measure (canaries)",
}
_WORD = {Effect.ALLOW.value: "may", Effect.NEEDS_APPROVAL.value: "may, once approved"}


def told(report: Mapping[str, Any], news: list[Change] | None, directory: str, now: datetime) -> Iterator[str]:
    """The lines. Texts of agents and people cannot do anything to a terminal."""
    return (inert(line) for line in _lines(report, news, directory, int(now.timestamp() * 1000)))


def _lines(report: Mapping[str, Any], news: list[Change] | None, directory: str, now_ms: int) -> Iterator[str]:
    made, since = moment_ms(report["made_ms"]), moment_ms(report["since_ms"])
    yield f"Access report of {directory}, made {made}; use since {since}"
    yield f"  digest {report['digest']}"
    yield _trail(report)
    yield from _last(report["last_review"], now_ms)
    yield from _changed(report, news)
    yield from _owners(report)
    for agent in report["agents"]:
        yield ""
        yield from _agent(agent)
    for kind, who in _BESIDE.items():
        if report[kind]:
            yield ""
            yield f"Used by {who}:"
        for each in report[kind]:
            yield f"  {short(each['agent'])}: {', '.join(_used(use) for use in each['used'])}"


def _trail(report: Mapping[str, Any]) -> str:
    trail = report["trail"]
    macs = "with their MACs" if trail["macs_checked"] else "MACs not checked"
    state = f"DAMAGED ({trail['findings']} findings: broker audit verify)" if trail["findings"] else "whole"
    unread = f"; {report['unread_records']} records could not be counted" if report["unread_records"] else ""
    return f"  the trail is {state}, {trail['records']} records, {macs}{unread}"


def _last(last: Mapping[str, Any] | None, now_ms: int) -> Iterator[str]:
    if last is None:
        yield "  no access report has been signed off yet"
        return
    due = last["due_ms"]
    when = f"; the next is {'OVERDUE since' if now_ms > due else 'due'} {moment_ms(due)}" if due else ""
    own = f", who answers for {last['own_agents']} of its agents" if last["own_agents"] else ""
    yield f"  last signed off {moment_ms(last['at_ms'])} by {short(last['by'])}{own}{when}"
    yield f'  it was found: "{last["findings"]}"'


def _changed(report: Mapping[str, Any], news: list[Change] | None) -> Iterator[str]:
    if news is None:
        if report["last_review"] is not None:
            yield f"  what changed since is told with --previous: the report {report['last_review']['digest']}"
        return
    yield ""
    yield "Changed since the last review, the gravest first:" if news else "Nothing changed since the last review."
    for each in news:
        grave = each.gravity is Gravity.READER_CHANGES
        yield f"  {'! ' if grave else '  '}{each.principal}: {'COULD ONLY READ, and now: ' if grave else ''}{each.told}"


def _owners(report: Mapping[str, Any]) -> Iterator[str]:
    orphans = [each for each in report["agents"] if each["owner_disabled"]]
    if orphans:
        yield ""
        yield "Their owner is gone or disabled, so nobody answers for them (brokerd does not take such a set):"
        yield from (f"  {each['principal']}: {each['owner_name']} ({each['owner']})" for each in orphans)


def _agent(agent: Mapping[str, Any]) -> Iterator[str]:
    roles = f", roles {', '.join(agent['roles'])}" if agent["roles"] else ""
    yield f"{agent['principal']}  {agent['identity']}"
    yield f"  {agent['tier']}{roles}; {agent['owner_name']} answers for it" + (
        " (GONE OR DISABLED)" if agent["owner_disabled"] else ""
    )
    if not agent["tried_as"]:
        yield "  could not be tried: no identity of its pattern came, or could be made up"
    elif agent["tried_as"] != [agent["identity"]]:
        yield f"  tried as {', '.join(map(short, agent['tried_as']))}"
    for way in agent["could"]:
        yield f"  {_way(way)}"
    never = sum(1 for way in agent["could"] if not way["granted"])
    yield f"  {len(agent['could'])} ways, {never} of them not used; {agent['denied']} denied"
    for each in agent["not_tried"]:
        yield f"  not tried, no value of its parameters is known: {each['access']} {_where(each)}"
    for each in agent["no_more"]:
        yield f"  had, and could not have today: {each['access']} {_used(each)}"


def _way(way: Mapping[str, Any]) -> str:
    approvals = f" ({', '.join(way['approvals'])})" if way["approvals"] else ""
    use = f"granted {way['granted']} times, last {moment_ms(way['last_ms'])}" if way["granted"] else "NOT USED"
    condition = f"; {way['condition']}" if way["condition"] else ""
    tried = "" if way["every_value_tried"] else f"; tried with {' | '.join(way['examples'])}"
    return f"{_WORD[way['effect']]}{approvals}: {way['access']} {_where(way)}: {use}{condition}{tried}"


def _where(scope: Mapping[str, Any]) -> str:
    return f"{scope['template']} on {scope['account']}, {scope['environment']}"


def _used(use: Mapping[str, Any]) -> str:
    return f"{_where(use)}: granted {use['granted']} times, last {moment_ms(use['last_ms'])}"
