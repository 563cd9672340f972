"""What has to end, of what an upstream lists: one table, its times in seconds before now."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from broker.lease.machine import State
from broker.lease.mark import Mark
from broker.ports.connectors import Carried
from broker.ports.orphans import HeldUpstream, OrphanWhy
from broker.revocation.comparison import compare, missing

NOW = datetime(2031, 5, 1, 12, tzinfo=UTC)
OURS, THEIRS = Mark("ourledgr"), Mark("theirone")
SETTLED = NOW - timedelta(seconds=45)


def one(attempt_id: str | None, age: float, state: State | None) -> tuple[str, int, int]:
    """(why it has to end, how many are young, how many are foreign)"""
    carried = Carried("up", attempt_id, None, {"attempt": "a"})
    held = {} if state is None else {"up": state}
    done = compare([carried], held, OURS, {"up": NOW - timedelta(seconds=age)}, SETTLED)
    return done.strays[0].why.value if done.strays else "", len(done.young), done.foreign


@pytest.mark.parametrize(
    ("attempt_id", "age", "state", "expected"),
    [
        # What the ledger holds alive is the revoker's, whatever else is true of it.
        *((OURS.attempt("a"), 3600, state, ("", 0, 0)) for state in (State.ISSUING, State.ACTIVE, State.REVOKING)),
        (THEIRS.attempt("a"), 3600, State.ACTIVE, ("", 0, 0)),
        (None, 3600, State.ACTIVE, ("", 0, 0)),
        # What has ended by the ledger and is there nevertheless: somebody lied. It is never too young for that.
        *((OURS.attempt("a"), 0, state, ("ENDED", 0, 0)) for state in (State.REVOKED, State.EXPIRED, State.VOID)),
        ("jb-ofbeforemarks", 0, State.REVOKED, ("ENDED", 0, 0)),
        # Unknown, and ours by its mark or by its place.
        (OURS.attempt("a"), 46, None, ("UNKNOWN", 0, 0)),
        (None, 46, None, ("UNKNOWN", 0, 0)),
        (OURS.attempt("a"), 45, None, ("UNKNOWN", 0, 0)),  # exactly when nothing can be in flight any more
        (OURS.attempt("a"), 44, None, ("", 1, 0)),
        (None, 0, None, ("", 1, 0)),
        # Not ours: another ledger's, one from before there were marks, and what is no id of ours at all.
        (THEIRS.attempt("a"), 3600, None, ("", 0, 1)),
        ("jb-" + "a" * 34, 3600, None, ("", 0, 1)),
        ("alice", 3600, None, ("", 0, 1)),
        ("", 3600, None, ("", 0, 1)),
    ],
)
def test_what_has_to_end(
    attempt_id: str | None, age: float, state: State | None, expected: tuple[str, int, int]
) -> None:
    assert one(attempt_id, age, state) == expected


@pytest.mark.parametrize(
    "hostile",
    [
        *("jb-ourledgr", "jb-ourledgr-", "xjb-ourledgr-a", "jb-ourledgr-a b", "jb-ourledgr-a\n", "JB-OURLEDGR-a"),
        *("jb-ourledg\u0280-a", "jb-ourledgr--a", "jb-ourledgr-" + "a" * 41),
    ],
)
def test_only_the_whole_form_is_our_mark(hostile: str) -> None:
    assert not OURS.owns(hostile)
    assert OURS.owns("jb-ourledgr-a")


@pytest.mark.parametrize("text", ["", "short", "ourledgrs", "OURLEDGR", "our-ledg", "ourledg\n"])
def test_a_mark_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a mark is 8"):
        Mark(text)


def held(name: str, upstream: str) -> HeldUpstream:
    return HeldUpstream("t", f"lease-{name}", name, 1, upstream)


def listed(name: str, attempt_id: str | None = None) -> Carried:
    return Carried(name, attempt_id, None, {})


@pytest.mark.parametrize(
    ("before", "carried", "after", "expected"),
    [
        ([held("a", "up-a")], [listed("up-a")], {"a"}, []),
        ([held("a", "up-a")], [listed("up-b")], {"a"}, ["a"]),
        ([held("a", "up-a")], [], {"a"}, ["a"]),
        ([held("a", "up-a")], [], set(), []),  # ended meanwhile: that is why it is not there
        ([held("a", "old-name")], [listed("new-name", "a")], {"a"}, []),  # by its id, whatever it is called
        ([held("a", "")], [listed("up-a", "a")], {"a"}, []),
        ([held("a", "")], [listed("up-b", "b")], {"a"}, ["a"]),
        ([held("a", "")], [listed("up-b")], {"a"}, []),  # no name noted and no ids told: nobody can say
    ],
)
def test_what_is_missing(
    before: list[HeldUpstream], carried: list[Carried], after: set[str], expected: list[str]
) -> None:
    assert [each.attempt_id for each in missing(before, carried, after)] == expected


def test_why_is_told_of_each() -> None:
    carried = [Carried(name, OURS.attempt(name), None, {"n": name}) for name in ("a", "b")]
    done = compare(carried, {"b": State.REVOKED}, OURS, dict.fromkeys(("a", "b"), SETTLED), SETTLED)
    assert [(each.carried.name, each.why) for each in done.strays] == [
        ("a", OrphanWhy.UNKNOWN),
        ("b", OrphanWhy.ENDED),
    ]
