"""The judge sees: each kind of fault is planted in a log or a trail that is otherwise good, and named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from broker.audit.record import Record
from tests.kill.upstream_log import Entry, What
from tests.kill.verdict import Delivery, judge, lives_of

NOW = 60_000


def said(kind: str, at_ms: int, attempt: str = "a1", lease: str = "l1") -> Record:
    return Record(at_ms, at_ms, "w", "t", kind, "broker", "broker", "task", lease, attempt, "alice", {}, "")


def made(at_ms: int, attempt: str = "a1", name: str = "login-1") -> Entry:
    return Entry(at_ms, What.LOGIN, name, attempt, 100_000, intended=True)


def ended(at_ms: int, attempt: str = "a1", name: str = "login-1") -> Entry:
    return Entry(at_ms, What.LOGIN_ENDED, name, attempt, why="revoked")


GOOD_TRAIL = [said("lease.intent", 10), said("lease.issued", 30), said("lease.revoking", 40), said("lease.revoked", 50)]
TOKEN = Entry(15, What.TOKEN, "accessor-1", "a1", 100_000, intended=True)
GOOD_LOG = [TOKEN, made(20), ended(45), Entry(46, What.TOKEN_ENDED, "accessor-1", "a1", why="revoked")]
DELIVERED = [Delivery(31, "r1", "l1", "a1", "login-of-a1")]
# A retry of the same request: the second attempt of the lease.
RETRY = [said("lease.intent", 60, "a2"), said("lease.issued", 70, "a2"), said("lease.revoked", 90, "a2")]


def test_a_good_run_has_no_faults_and_its_figures() -> None:
    verdict = judge(GOOD_LOG, GOOD_TRAIL, DELIVERED, NOW)
    assert verdict.faults == []
    assert verdict.figures == {
        "tokens left to their time": 0,
        "attempts": 1,
        "logins": 1,
        "delivered": 1,
        "expired": 0,
        "revoked": 1,
        "void": 0,
        "orphans swept": 0,
    }


def test_a_retry_after_the_first_has_ended_is_no_double() -> None:
    log = [*GOOD_LOG, made(65, "a2", "login-2"), ended(85, "a2", "login-2")]
    assert judge(log, [*GOOD_TRAIL, *RETRY], DELIVERED, NOW).faults == []


def test_what_ends_by_itself_is_not_leaked() -> None:
    """F42: a login may end by its own time while the broker is down."""
    trail = [*GOOD_TRAIL[:2], said("lease.expired", 100_001)]
    assert judge([TOKEN, made(20)], trail, DELIVERED, 100_002).faults == []


def test_the_login_of_an_attempt_that_never_was_active_is_counted_as_an_orphan() -> None:
    trail = [said("lease.intent", 10), said("lease.revoking", 40), said("lease.revoked", 50)]
    verdict = judge(GOOD_LOG, trail, [], NOW)
    assert (verdict.faults, verdict.figures["orphans swept"]) == ([], 1)


@pytest.mark.parametrize(
    ("kind", "log", "trail"),
    [
        pytest.param("leaked early", [TOKEN, made(20)], GOOD_TRAIL, id="alive, and said to be revoked"),
        pytest.param("leaked unaudited", [made(20, "a9")], [], id="alive, and unknown"),
        pytest.param("unaudited", [made(20, "a9"), ended(21, "a9")], [], id="of no intent"),
        pytest.param("unaudited", [made(5), ended(45)], GOOD_TRAIL, id="before its intent"),
        pytest.param("unaudited", [replace(made(20), intended=False), ended(45)], GOOD_TRAIL, id="intent not durable"),
        pytest.param("unaudited", [replace(TOKEN, intended=False)], GOOD_TRAIL, id="a token before its intent"),
        pytest.param(
            "double",
            [made(20), made(65, "a2", "login-2"), ended(66), ended(85, "a2", "login-2")],
            [*GOOD_TRAIL[:3], *RETRY, said("lease.revoked", 95)],
            id="the first is alive when the second is made",
        ),
        pytest.param(
            "double", [made(20), made(21, name="login-2"), ended(45), ended(45, name="login-2")], GOOD_TRAIL, id="two"
        ),
        pytest.param("early", [made(20), ended(51)], GOOD_TRAIL, id="revoked is said before it is"),
        pytest.param("undue", GOOD_LOG, [GOOD_TRAIL[0], *GOOD_TRAIL[2:]], id="delivered and never active"),
        pytest.param("undue", GOOD_LOG, [GOOD_TRAIL[0], said("lease.issued", 32), GOOD_TRAIL[3]], id="delivered first"),
        pytest.param("unfinished", GOOD_LOG, GOOD_TRAIL[:3], id="never over"),
    ],
)
def test_a_fault_is_seen(kind: str, log: Sequence[Entry], trail: Sequence[Record]) -> None:
    faults = judge(log, trail, DELIVERED if kind == "undue" else [], NOW).faults
    assert faults
    assert {fault.partition(":")[0] for fault in faults} == set(kind.split())


def test_a_trail_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(AssertionError):
        lives_of([*GOOD_TRAIL, said("lease.issued", 60)])
    with pytest.raises(AssertionError):
        lives_of([GOOD_TRAIL[0], GOOD_TRAIL[0]])
