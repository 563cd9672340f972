"""The ledger's own word held against the upstream's: nothing leaked, nothing unaudited, nothing double, nothing told too early.

Pure: an upstream's log, audit records, deliveries in; faults out. Whose daemon, how many, and on which database is all the
same. Rows of faults.md: F1 to F5, F7, F14, F19, F42.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from broker.audit.record import Record
from tests.kill.upstream_log import Entry, What

_OVER = {"lease.void": "VOID", "lease.revoked": "REVOKED", "lease.expired": "EXPIRED"}
_TOLD = {"lease.issued": "ACTIVE", "lease.revoking": "REVOKING", **_OVER}


@dataclass(slots=True)
class Life:
    """One attempt as the trail tells it: when it was intended, was delivered at the earliest, and was over."""

    lease: str
    intended_ms: int
    issued_ms: int | None = None
    state: str = "ISSUING"
    over_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Login:
    """One login as the upstream tells it; ``order``: the lines at which it was made and ended."""

    lease: str
    attempt: str
    intended: bool
    made_ms: int
    made_at: int
    until_ms: int
    ended_ms: int | None = None
    ended_at: int | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One secret that reached an agent."""

    at_ms: int
    request_id: str
    lease: str
    attempt: str
    username: str


@dataclass(slots=True)
class Verdict:
    """Faults by kind, each with what it is about; and figures of what was seen."""

    leaked: list[str] = field(default_factory=list)  # alive upstream, and its lease is over or was never there
    unaudited: list[str] = field(default_factory=list)  # made before its intent was durable, or without one
    double: list[str] = field(default_factory=list)  # two alive at a time of one request
    early: list[str] = field(default_factory=list)  # said to be over while it was alive
    undue: list[str] = field(default_factory=list)  # delivered, and never active
    unfinished: list[str] = field(default_factory=list)  # not over, with everything healed
    figures: dict[str, int] = field(default_factory=dict)

    @property
    def faults(self) -> list[str]:
        """All of them, a line each."""
        kinds = ("leaked", "unaudited", "double", "early", "undue", "unfinished")
        return [f"{kind}: {each}" for kind in kinds for each in getattr(self, kind)]


def judge(log: Iterable[Entry], records: Iterable[Record], deliveries: Iterable[Delivery], now_ms: int) -> Verdict:
    """Everything there is to say; ``now_ms``: the upstream's clock, after its last line."""
    lives = lives_of(records)
    entries, delivered = list(log), list(deliveries)
    logins = logins_of(entries)
    verdict = Verdict()
    _tokens(verdict, entries, lives, now_ms)
    for login in logins:
        _one(verdict, login, lives.get(login.attempt), now_ms)
    _pairs(verdict, logins, lives)
    for each in delivered:
        life = lives.get(each.attempt)
        if life is None or life.issued_ms is None or life.issued_ms > each.at_ms:
            verdict.undue.append(f"{each.attempt}: delivered to {each.username}, and not issued by then")
    verdict.unfinished += [f"{name} is {life.state}" for name, life in lives.items() if life.over_ms is None]
    verdict.figures |= {
        "attempts": len(lives),
        "logins": len(logins),
        "delivered": len(delivered),
        **{state.lower(): sum(life.state == state for life in lives.values()) for state in sorted(_OVER.values())},
        "orphans swept": sum(_is_orphan(login, lives.get(login.attempt)) for login in logins),
    }
    return verdict


def _is_orphan(login: Login, life: Life | None) -> bool:
    """Made for an attempt that never came to be active: nobody was given it, and it has ended."""
    return login.ended_ms is not None and life is not None and life.issued_ms is None


def lives_of(records: Iterable[Record]) -> dict[str, Life]:
    """Each attempt of the trail. Raises AssertionError where the trail contradicts itself."""
    lives: dict[str, Life] = {}
    for record in records:
        if record.type == "lease.intent":
            assert record.attempt_id not in lives, f"{record.attempt_id} is intended twice"
            lives[record.attempt_id] = Life(record.lease_id, record.at_ms)
        elif record.type in _TOLD:
            life = lives[record.attempt_id]
            assert life.over_ms is None, f"{record.attempt_id} was {life.state}, and is {record.type}"
            life.state = _TOLD[record.type]
            if record.type == "lease.issued":
                life.issued_ms = record.at_ms
            if record.type in _OVER:
                life.over_ms = record.at_ms
    return lives


def logins_of(entries: Iterable[Entry]) -> list[Login]:
    """Each login of the log, with its end where it has one."""
    made: dict[str, tuple[int, Entry]] = {}
    until: dict[str, int] = {}
    ended: dict[str, tuple[int, Entry]] = {}
    for number, entry in enumerate(entries):
        if entry.what is What.LOGIN:
            made[entry.name] = number, entry
            until[entry.name] = entry.until_ms
        elif entry.what is What.LOGIN_SHORTENED:
            until[entry.name] = entry.until_ms
        elif entry.what is What.LOGIN_ENDED:
            ended[entry.name] = number, entry
    return [
        Login(
            name,
            entry.attempt,
            entry.intended,
            entry.at_ms,
            number,
            until[name],
            ended[name][1].at_ms if name in ended else None,
            ended[name][0] if name in ended else None,
        )
        for name, (number, entry) in made.items()
    ]


def _tokens(verdict: Verdict, entries: list[Entry], lives: Mapping[str, Life], now_ms: int) -> None:
    """An attempt's token has an intent, too; one whose answer was lost is nobody's, and ends by its own time."""
    over = {entry.name for entry in entries if entry.what is What.TOKEN_ENDED}
    left = 0
    for entry in entries:
        if entry.what is What.TOKEN:
            _intended(verdict, "token", entry.attempt, entry.intended, entry.at_ms, lives)
            left += entry.name not in over and entry.until_ms > now_ms
    verdict.figures["tokens left to their time"] = left


def _one(verdict: Verdict, login: Login, life: Life | None, now_ms: int) -> None:
    _intended(
        verdict, "login", login.attempt, login.intended, login.made_ms, {} if life is None else {login.attempt: life}
    )
    if login.ended_ms is None and login.until_ms > now_ms:
        verdict.leaked.append(f"{login.lease} of {login.attempt}, which is {'unknown' if life is None else life.state}")
    if life is not None and life.over_ms is not None:
        gone = min(login.until_ms, login.ended_ms if login.ended_ms is not None else login.until_ms)
        if gone > life.over_ms:
            verdict.early.append(
                f"{login.attempt} was {life.state} {gone - life.over_ms} ms before {login.lease} ended"
            )


def _intended(
    verdict: Verdict, what: str, attempt: str, intended: bool, made_ms: int, lives: Mapping[str, Life]
) -> None:
    life = lives.get(attempt)
    if life is None:
        verdict.unaudited.append(f"a {what} of {attempt}, of which the trail knows nothing")
    elif not intended:
        verdict.unaudited.append(f"a {what} of {attempt} was made before the ledger had noted what comes before it")
    elif life.intended_ms > made_ms:
        verdict.unaudited.append(f"a {what} of {attempt} was made {life.intended_ms - made_ms} ms before its intent")


def _pairs(verdict: Verdict, logins: Iterable[Login], lives: Mapping[str, Life]) -> None:
    """By the order of the log's lines: of one lease, a login begins only where the one before it has ended."""
    by_lease: dict[str, list[Login]] = defaultdict(list)
    for login in logins:
        if (life := lives.get(login.attempt)) is not None:
            by_lease[life.lease].append(login)
    for lease, several in by_lease.items():
        for before, after in _following(sorted(several, key=lambda each: each.made_at)):
            alive = before.ended_at is None or before.ended_at > after.made_at
            if alive and before.until_ms > after.made_ms:
                verdict.double.append(f"{lease}: {before.attempt} was alive when {after.attempt} was made")


def _following(several: list[Login]) -> Iterator[tuple[Login, Login]]:
    for number, after in enumerate(several):
        for before in several[:number]:
            yield before, after
