"""The trail in words: one audit record as a sentence for a person.

Says what the record says and nothing else; what an agent claims is put in quotes and marked as its word. A record of
a kind that has no sentence here, or that lacks what its sentence tells, is told plainly, with all its data: nothing
of the trail is left out because it is in a form that was not expected. The texts are as they came: whoever shows
them makes them inert first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

from broker.audit.event import EventType, Vouch
from broker.audit.record import Record

_Told = Mapping[str, Any]
_Sentence = Callable[[Record, _Told], str]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What an agent says about its reasons, in the order in which it is told.
_CLAIMS = ("intent", "reason", "ticket", "step")
_DIGESTS = {"prompt_sha256": "prompt", "tool_call_sha256": "tool call", "plan_sha256": "plan"}


def sentence(record: Record) -> str:
    """What happened, in one line; the ids that it is about are the reader's to add."""
    tell = _SENTENCES.get(record.type)
    if tell is None:
        return _plainly(record)
    try:
        told = _filled(tell, record) if isinstance(tell, str) else tell(record, record.data)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return _plainly(record)
    return told if record.vouched_by == Vouch.BROKER else f"{told} ({_WORD.get(record.vouched_by, record.vouched_by)})"


_WORD = {Vouch.AGENT.value: "the agent's word", Vouch.UPSTREAM.value: "seen upstream"}


def short(principal: str) -> str:
    """Whom people mean: a SPIFFE ID without its scheme, a person's subject with its issuer's host."""
    if principal.startswith("spiffe://"):
        return principal.removeprefix("spiffe://")
    # A subject may have a # in it, an issuer never.
    issuer, hash_, subject = principal.partition("#")
    return f"{subject} ({issuer.removeprefix('https://')})" if hash_ else principal


def _filled(text: str, record: Record) -> str:
    # A record may have a "why" of its own, which is not what these texts mean by it.
    return text.format(**{**record.data, "who": short(record.actor), "why": _why(record.data)})


def _plainly(record: Record) -> str:
    return f"{record.type} by {short(record.actor)}: {json.dumps(record.data, ensure_ascii=False, sort_keys=True)}"


def _at(ms: int) -> str:
    return (_EPOCH + timedelta(milliseconds=ms)).strftime("%Y-%m-%d %H:%M:%SZ")


def _span(ms: int) -> str:
    seconds = timedelta(milliseconds=ms).total_seconds()
    return f"{seconds:g} s" if seconds < 120 else f"{seconds / 60:g} min"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _claims(told: _Told) -> str:
    said = [f"{name} {_quoted(told[name])}" for name in _CLAIMS if told.get(name)]
    said += [f"{name} sha256:{told[key][:12]}" for key, name in _DIGESTS.items() if told.get(key)]
    return f"; it says: {', '.join(said)}" if said else ""


def _scope(told: _Told) -> str:
    parameters = ", ".join(f"{name}={value}" for name, value in sorted(told["parameters"].items()))
    what = f"{told['template']} on {told['resource']} of account {told['account']}, {told['environment']}"
    return f"{what} ({parameters})" if parameters else what


def _by(told: _Told) -> str:
    return f"by policy {', '.join(told['policies'])}" if told["policies"] else "by no policy"


def _count(number: int, one: str) -> str:
    if not isinstance(number, int):
        raise TypeError(number)
    return f"{number} {one}{'' if number == 1 else 's'}"


def _why(told: _Told) -> str:
    return str(told["cause"]).lower().replace("_", " ") if told.get("cause") else "no cause recorded"


def _task_started(record: Record, told: _Told) -> str:
    others = [short(each) for each in told["participants"] if each != record.actor]
    joined = f", with {', '.join(others)}" if others else ""
    ticket = f", ticket {_quoted(told['ticket'])}" if told.get("ticket") else ""
    return (
        f"{short(record.actor)} started the task {_quoted(told['purpose'])}{joined}{ticket}"
        f"; it ends at {_at(told['deadline_ms'])} at the latest"
    )


def _reported(record: Record, told: _Told) -> str:
    made = [f"made {_quoted(each['uri'])}" for each in told["artifacts"]]
    changed = [f"{each['action'].lower()} {_quoted(each['resource'])}{_times(each)}" for each in told["mutations"]]
    return f"{short(record.actor)} reports: {', '.join((*made, *changed))}"


def _times(mutation: _Told) -> str:
    return f" ({mutation['count']} of them)" if "count" in mutation else ""


def _erased(record: Record, told: _Told) -> str:
    tasks = f" of {_count(told['tasks'], 'task')}" if "tasks" in told else ""
    why = _quoted(told["reason"])
    return f"{short(record.actor)} erased the prompts, tool calls and plans{tasks}: {why}; their digests stay"


def _intent(record: Record, told: _Told) -> str:
    again = f" (attempt {told['attempt']})" if told["attempt"] > 1 else ""
    return (
        f"{short(record.actor)} is allowed {told['access']} access, {_scope(told)}, until {_at(told['expires_ms'])},"
        f" {_by(told)}{again}{_claims(told)}"
    )


def _issued(record: Record, told: _Told) -> str:
    known = f", known there as {told['upstream']}" if told.get("upstream") else ""
    return f"the upstream issued the credential{known}; it ends by itself at {_at(told['expires_ms'])}"


def _refused(record: Record, told: _Told) -> str:
    return f"{short(record.actor)} was refused {_call(told['method'])}: {told['reason']}: {told['message']}"


def _requested(record: Record, told: _Told) -> str:
    return (
        f"{short(record.actor)} asks people for {told['access']} access, {_scope(told)}, for {_span(told['ttl_ms'])};"
        f" it takes {', '.join(told['approvals'])}{_claims(told)}"
    )


def _voted(record: Record, told: _Told) -> str:
    note = f", noting {_quoted(told['note'])}" if told.get("note") else ""
    groups = ", ".join(told["groups"])
    return f"{short(record.actor)} said {told['vote']} for {told['approval']} (of {groups}; by {told['how']}){note}"


def _suspended(record: Record, told: _Told) -> str:
    until = f" until {_at(told['until_ms'])}" if told.get("until_ms") else ""
    what = f"{told.get('kind', '')} {told['value']}".strip() or "everything"
    ended = _count(told["attempts_ended"], "credential")
    return f"{short(record.actor)} suspended {what}{until}: {_quoted(told['reason'])}; {ended} ended"


def _broke_glass(record: Record, told: _Told) -> str:
    whose = f" for {short(told['for_agent'])}" if told["for_agent"] else ""
    return (
        f"{short(record.actor)} BROKE GLASS{whose} on {told['template']}, {_quoted(told['incident'])}:"
        f" {_quoted(told['reason'])}; told: {_count(len(told['told']), 'person')}"
    )


def _checkpoint(note: str) -> str:
    origin, count = note.split("\n")[:2]
    return f"the broker signed for the {int(count)} records of {origin} so far"


def _escalation(record: Record, told: _Told) -> str:
    return (
        f"rule {told['rule']} fired for {short(told['agent'])}: {told['count']} {told['counts']} between"
        f" {told['first']} and {told['last']}; answer {told['answer']} ({told['mode']}, took {told['took']})"
    )


def _summarised(record: Record, told: _Told) -> str:
    return f"further refusals of {short(record.actor)} were only counted: {_counts(told)}"


def _counts(told: _Told) -> str:
    return ", ".join(f"{count} x {_call(what)}" for what, count in sorted(told["counts"].items()))


def _looked(record: Record, told: _Told) -> str:
    about = ", ".join(f"{name} {_quoted(text)}" for name, text in sorted(told["about"].items()))
    return f"{short(record.actor)} looked: {_call(told['method'])}{f' of {about}' if about else ''}"


def _call(method: str) -> str:
    return str(method).rpartition("/")[2]


# A text says it with {who} for the actor, {why} for the cause, and the record's data by name.
_SENTENCES: Final[Mapping[str, str | _Sentence]] = MappingProxyType(
    {
        EventType.TASK_STARTED: _task_started,
        EventType.TASK_COMPLETED: lambda record, told: (
            f"{short(record.actor)} completed the task{_said(told)};"
            f" {_count(told['attempts_ended'], 'credential')} ended by it"
        ),
        EventType.TASK_ENDED: lambda record, told: (
            f"the task ended ({_why(told)}); {_count(told['attempts_ended'], 'credential')} ended by it"
        ),
        EventType.TASK_REPORTED: _reported,
        EventType.LEASE_INTENT: _intent,
        EventType.LEASE_ISSUED: _issued,
        EventType.LEASE_VOID: "proved never issued: there is nothing to end",
        EventType.LEASE_REVOKING: lambda record, told: (
            f"{short(record.actor)} ends it ({_why(told)}){_said(told)}; the upstream is asked until it confirms"
        ),
        EventType.LEASE_REVOKED: lambda record, told: (
            f"the upstream confirmed: the credential is dead ({_why(told)})"
            + (f", after {_count(told['failures'], 'failed try').replace('trys', 'tries')}" if told["failures"] else "")
        ),
        EventType.LEASE_EXPIRED: "its time is over: the credential is dead ({why})",
        EventType.LEASE_STUCK: lambda record, told: (
            f"ALARM: it cannot be ended so far: {told.get('error') or told.get('why')}; tried for ever"
        ),
        EventType.LEASE_FORGET_BEGUN: lambda record, told: (
            f"{short(record.actor)} is the first of two people to say that it cannot be alive:"
            f" {_quoted(told['reason'])}"
        ),
        EventType.LEASE_FORGOTTEN: lambda record, told: (
            f"{short(record.actor)}, after {short(told['first_by'])}, says that it cannot be alive any more,"
            f" which nobody could prove: {_quoted(told['reason'])}"
        ),
        EventType.DELIVERY_CONFIRMED: "{who} has the credential",
        EventType.ACCESS_REQUESTED: _requested,
        EventType.ACCESS_VOTED: _voted,
        EventType.ACCESS_APPROVED: lambda record, told: (
            f"the request is approved by {', '.join(short(each) for each in told['people'])};"
            f" it can be redeemed until {_at(told['redeem_by_ms'])}"
        ),
        EventType.ACCESS_DENIED: "{who} denied the request",
        EventType.ACCESS_WITHDRAWN: "{who} withdrew the request",
        EventType.ACCESS_LAPSED: lambda record, told: f"the request lapsed: {told['why']}",
        EventType.ACCESS_REDEEMED: "{who} redeemed the approval, which is used up by it",
        EventType.PLAN_REGISTERED: lambda record, told: (
            f"{short(record.actor)} registered a plan with the steps {', '.join(told['steps'])}"
        ),
        EventType.PLAN_CONFIRMED: lambda record, told: f"{short(record.actor)} confirmed the plan{_said(told)}",
        EventType.PLAN_REJECTED: lambda record, told: f"{short(record.actor)} rejected the plan{_said(told)}",
        EventType.PLAN_STEP_USED: "step {step} of plan {plan_id} is used, for {used_for}",
        EventType.DELEGATION_GIVEN: lambda record, told: (
            f"{short(record.actor)} hands on {told['resource']} to {short(told['delegate'])}"
            f" until {_at(told['expires_ms'])}"
        ),
        EventType.DELEGATION_USED: "delegation {delegation_id} is used, for {used_for}",
        EventType.DELEGATION_REVOKED: lambda record, told: (
            f"{short(record.actor)} took the delegation back; {_count(told['attempts_ended'], 'credential')} ended"
        ),
        EventType.REQUEST_REFUSED: _refused,
        EventType.AGENT_DENIED: _refused,
        EventType.REFUSALS_SUMMARISED: _summarised,
        EventType.SUSPENDED: _suspended,
        EventType.RESUME_BEGUN: lambda record, told: (
            f"{short(record.actor)} is the first of two people to resume: {_quoted(told['reason'])}"
        ),
        EventType.RESUMED: lambda record, told: f"{short(record.actor)} resumed it{_said(told)}",
        EventType.BREAK_GLASS_USED: _broke_glass,
        EventType.BREAK_GLASS_CODE_USED: "it was by the sealed code {code}, without the identity provider",
        EventType.BREAK_GLASS_ENDED: "the emergency's credential is dead ({state})",
        EventType.BREAK_GLASS_REVIEW_DUE: lambda record, told: (
            f"somebody else has to review it by {_at(told['review_due_ms'])}"
        ),
        EventType.BREAK_GLASS_REVIEWED: lambda record, told: (
            f"{short(record.actor)} reviewed it: {_quoted(told['findings'])}"
        ),
        EventType.BREAK_GLASS_REVIEW_OVERDUE: lambda record, told: (
            f"nobody has reviewed it in time: {', '.join(told['blocked'])} cannot break glass"
        ),
        EventType.BREAK_GLASS_OVERRIDE: lambda record, told: (
            f"{short(record.actor)} let {short(told['person'])} pass over {told['kind']} {told['subject']}{_said(told)}"
        ),
        EventType.ESCALATION_DETECTED: _escalation,
        EventType.ADMIN_READ: _looked,
        EventType.ADMIN_READS_SUMMARISED: lambda record, told: (
            f"further looks of {short(record.actor)} were only counted: {_counts(told)}"
        ),
        EventType.TEXTS_READ: "{who} read the prompts, tool calls and plans",
        EventType.TEXTS_ERASED: _erased,
        EventType.DEPLOY_ACTIVATED: lambda record, told: (
            f"the deploy set {told['digest'][:12]} is in force{_asked(record)}"
        ),
        EventType.ACCESS_REVIEW_SIGNED_OFF: lambda record, told: (
            f"{short(record.actor)} signed off the access report {told['digest'][:12]} of"
            f" {_count(told['agents'], 'agent')}: {_quoted(told['findings'])}"
        ),
        EventType.RETENTION_DELETED: lambda record, told: (
            f"{_count(told['tasks'], 'task')}, over since before {_at(told['before_ms'])}, left the ledger with all"
            " that belongs to them; the trail stays"
        ),
        EventType.DEPLOY_REFUSED: lambda record, told: (
            f"a deploy set was refused{_asked(record)}, the last good one stays: {'; '.join(told['problems'][:3])}"
        ),
        EventType.AUDIT_CHECKPOINT: lambda record, told: _checkpoint(told["note"]),
        EventType.RECOVERY_ENTERED: lambda record, told: (
            f"the broker found its ledger behind witness {told['witness']}, which has seen {told['witnessed']} records"
            f" where the ledger has {told['ledger']}: nothing is granted until two people release it"
        ),
        EventType.RECOVERY_BEGUN: lambda record, told: (
            f"{short(record.actor)} was the first to release the recovery{_said(told)}"
        ),
        EventType.RECOVERY_RELEASED: lambda record, told: (
            f"{short(record.actor)} released the recovery, after {short(told['first'])}{_said(told)}: grants go on"
        ),
        EventType.UPSTREAM_UNKNOWN_FOUND: lambda record, told: (
            f"connector {told['connector']} has {told['name']} upstream, "
            + ("which the ledger has never heard of" if told["why"] == "UNKNOWN" else "whose end the ledger has proven")
            + ": it is being ended"
        ),
        EventType.UPSTREAM_UNKNOWN_ENDED: "{name} of connector {connector} is dead: the upstream confirmed",
        EventType.UPSTREAM_UNKNOWN_STUCK: lambda record, told: (
            f"ALARM: {told.get('name', told.get('id'))} cannot be ended so far: {told.get('error') or told.get('why')};"
            " tried for ever"
        ),
        EventType.UPSTREAM_SWEEP_BRAKED: "left {unknown} of {connector} alone, of which the ledger knows nothing",
        EventType.UPSTREAM_SWEEP_ALLOWED: "allowed {at_most} unknown ones of {connector} to be ended",
        EventType.UPSTREAM_MISSING: "connector {connector} does not list it, though the ledger holds it alive",
        EventType.UPSTREAM_RECONCILED: lambda record, told: (
            f"{short(record.actor)} had the inventory of {told['connector']} compared with the ledger: "
            + (told["problem"] or f"{told['found']} unknown, {told['missing']} missing")
        ),
        EventType.CONNECTOR_ROOT_REFUSED: lambda record, told: (
            f"ALARM: the upstream of connector {told['connector']} refuses the broker itself: it issues nothing"
            f" ({told['why']})"
        ),
        EventType.CONNECTOR_ROOT_RESTORED: lambda record, told: (
            f"the upstream of connector {told['connector']} takes the broker again: it issues"
        ),
        EventType.CLOCK_DOUBTED: lambda record, told: (
            f"ALARM: the broker's clock is doubted ({told['why']}, {told['by_ms'] / 1000:g} s): nothing is granted"
        ),
        EventType.CLOCK_BELIEVED: "the broker's clock is believed again: it grants",
        EventType.LEDGER_FULL: lambda record, told: (
            f"ALARM: the disk of the ledger is full ({told['free']} bytes are free): nothing is granted"
        ),
        EventType.LEDGER_ROOM: "there is room on the disk of the ledger again: it grants",
        EventType.DAEMON_STARTED: lambda record, told: (
            f"the broker started; {_count(told['recovered'], 'credential')} found due or unknown"
        ),
        EventType.DAEMON_STOPPED: "the broker stopped",
    }
)


def _asked(record: Record) -> str:
    return "" if record.actor == "broker" else f" (reloaded by {short(record.actor)})"


def _said(told: _Told) -> str:
    return f": {_quoted(told['reason'])}" if told.get("reason") else ""
