"""The inline policies that deny single sessions of a role, as documents: what they say, and what they take. Pure.

IAM has no compare-and-swap, so a policy's *name* says who writes it: ``jit-broker-deny-<epoch>-<shard>``. Nobody
writes a name of another epoch; a writer's documents for one name only lose what has ended. Whatever write arrives late,
it can only add a Deny (docs/decisions/aws-deny-policies.md).

A document tells by itself until when each Deny is needed, in its Sids, so that whoever reads it can tell what may go.
That is the *native* end of the session, not its deadline: STS makes none shorter than 900 s.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

PREFIX = "jit-broker-deny-"
# IAM User Guide, "IAM and AWS STS quotas": all inline policies of one role together, white space not counted.
ALL_INLINE = 10_240
# What one name grows to before the next shard begins: a name whose write got no answer is not written again.
SHARD = 3_000
# Always kept free, for the Deny on all sessions so far: that one must fit when nothing else does.
RESERVE = 256
# Ends are rounded up to this, so that many sessions share one statement.
_ROUND = timedelta(minutes=10)

_NAME = re.compile(re.escape(PREFIX) + r"([A-Za-z0-9]{1,64})-([0-9]{1,6})\Z", re.ASCII)
_USER_ID = re.compile(r"[A-Z0-9]{4,128}:[A-Za-z0-9_+=,.@-]{2,64}\Z", re.ASCII)
_UNTIL = re.compile(r"(Until|OlderUntil)([0-9]{8}T[0-9]{6}Z)\Z", re.ASCII)
_SID_TIME, _TIME = "%Y%m%dT%H%M%SZ", "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class Session:
    """One session that must die. ``user_id``: ``<RoleId>:<RoleSessionName>``, what AWS calls its AssumedRoleId."""

    user_id: str
    issued_by: datetime  # when STS can have made it at the latest
    ends: datetime  # when it ends by itself, at the latest


@dataclass(frozen=True, slots=True)
class Older:
    """The Deny on every session that was issued before a time: the form that AWS's console uses."""

    before: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Contents:
    """What one policy denies: sessions, each until when it is needed, and perhaps all older than a time."""

    sessions: Mapping[str, datetime] = field(default_factory=dict)
    older: Older | None = None

    @property
    def newest(self) -> datetime | None:
        """When the last of it has ended; None for nothing at all."""
        ends = [*self.sessions.values(), *([self.older.until] if self.older else [])]
        return max(ends, default=None)

    def denies(self, session: Session) -> bool:
        """Whether this one is dead by it."""
        if session.user_id in self.sessions:
            return True
        return self.older is not None and session.issued_by < self.older.before

    def with_sessions(self, sessions: Iterable[Session]) -> Contents:
        """These as well; one that is there already keeps the later end."""
        more = dict(self.sessions)
        for each in sessions:
            more[each.user_id] = max(rounded(each.ends), more.get(each.user_id, each.ends))
        return Contents(more, self.older)

    def at(self, now: datetime) -> Contents:
        """Without what has ended."""
        older = self.older if self.older is not None and self.older.until > now else None
        return Contents({name: until for name, until in self.sessions.items() if until > now}, older)


def rounded(ends: datetime) -> datetime:
    """Up to the next full ten minutes."""
    ends = ends.astimezone(UTC)
    over = timedelta(minutes=ends.minute % 10, seconds=ends.second, microseconds=ends.microsecond)
    return ends if not over else ends - over + _ROUND


def name_of(epoch: str, shard: int) -> str:
    """The name of a policy of one writer."""
    return f"{PREFIX}{epoch}-{shard}"


def epoch_of(name: str) -> str | None:
    """Whose policy it is by its name; None for other people's."""
    found = _NAME.match(name)
    return None if found is None else found[1]


def document(contents: Contents) -> str:
    """The policy as compact JSON, the same for the same contents. Raises ValueError for what is no session's name."""
    by_end: dict[datetime, list[str]] = {}
    for user_id, until in sorted(contents.sessions.items()):
        if not _USER_ID.match(user_id):  # nothing in it that IAM would read as more than itself
            raise ValueError(f"{ascii(user_id)[:100]} is no aws:userid of a role's session")
        by_end.setdefault(until, []).append(user_id)
    statements = [
        _deny(f"Until{until.strftime(_SID_TIME)}", {"StringEquals": {"aws:userid": names}})
        for until, names in sorted(by_end.items())
    ]
    if contents.older is not None:
        before = {"DateLessThan": {"aws:TokenIssueTime": contents.older.before.strftime(_TIME)}}
        statements.append(_deny(f"OlderUntil{contents.older.until.strftime(_SID_TIME)}", before))
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, separators=(",", ":"))


def size(policy: str | Mapping[str, Any]) -> int:
    """What IAM counts of a policy, or more: white space within texts is counted too."""
    parsed = json.loads(policy) if isinstance(policy, str) else policy
    return len(json.dumps(parsed, separators=(",", ":"), ensure_ascii=True))


def read(policy: object) -> Contents | None:
    """What a document of :func:`document`'s making denies; None for anything else, of which nothing is believed."""
    if not isinstance(policy, Mapping) or not isinstance(policy.get("Statement"), list):
        return None
    sessions: dict[str, datetime] = {}
    older: Older | None = None
    for statement in policy["Statement"]:
        try:
            kind, until = _until(statement)
            if kind == "Until":
                sessions.update(dict.fromkeys(_user_ids(statement), until))
            else:
                older = Older(_before(statement), until)
        except (AttributeError, KeyError, TypeError, ValueError):
            return None
    return Contents(sessions, older)


def _deny(sid: str, condition: Mapping[str, Any]) -> dict[str, Any]:
    return {"Sid": sid, "Effect": "Deny", "Action": "*", "Resource": "*", "Condition": condition}


def _until(statement: Mapping[str, Any]) -> tuple[str, datetime]:
    found = _UNTIL.match(statement["Sid"])
    if found is None or (statement["Effect"], statement["Action"], statement["Resource"]) != ("Deny", "*", "*"):
        raise ValueError("not one of ours")
    return found[1], datetime.strptime(found[2], _SID_TIME).replace(tzinfo=UTC)


def _user_ids(statement: Mapping[str, Any]) -> list[str]:
    if statement["Condition"].keys() != {"StringEquals"} or statement["Condition"]["StringEquals"].keys() != {
        "aws:userid"
    }:
        raise ValueError("another condition than ours")
    names = statement["Condition"]["StringEquals"]["aws:userid"]
    if not isinstance(names, list) or not all(_USER_ID.match(each) for each in names):
        raise ValueError("no list of user ids")
    return names


def _before(statement: Mapping[str, Any]) -> datetime:
    if statement["Condition"].keys() != {"DateLessThan"} or statement["Condition"]["DateLessThan"].keys() != {
        "aws:TokenIssueTime"
    }:
        raise ValueError("another condition than ours")
    text = statement["Condition"]["DateLessThan"]["aws:TokenIssueTime"]
    return datetime.strptime(text, _TIME).replace(tzinfo=UTC)
