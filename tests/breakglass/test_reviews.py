"""Where a review stands, whom it blocks, and how a sealed code is written and read."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.breakglass.codes import ALPHABET, ID_LENGTH, SECRET_LENGTH, hashed, of_random, read_code, written
from broker.breakglass.intent import use_fields
from broker.breakglass.reviews import Findings, ReviewState, Use, blocked_groups
from broker.errors import Unauthenticated
from broker.secret import Secret

T0 = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(hours=24)
USE = Use(
    *("default", "lease-1", "task-1", "orders", "idp#bea", "Bea", "", ""),
    groups=frozenset({"sre", "dba"}),
    reason="locked",
    incident="INC-1",
    how="login",
    code_id="",
    told=(),
    overrode=(),
    created_at=T0,
    review_due=T0 + DAY,
    ended_at=None,
    void=False,
    findings=None,
)
ENDED = replace(USE, ended_at=T0 + timedelta(hours=1))
REVIEWED = replace(ENDED, findings=Findings("idp#eli", "Eli", "fine", T0 + timedelta(hours=2)))
TICK = timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("use", "after", "state"),
    [
        (USE, timedelta(0), ReviewState.AHEAD),
        (USE, DAY - TICK, ReviewState.AHEAD),
        (USE, DAY, ReviewState.OVERDUE),
        (ENDED, DAY - TICK, ReviewState.DUE),
        (ENDED, DAY, ReviewState.OVERDUE),
        (REVIEWED, DAY * 9, ReviewState.REVIEWED),
        (replace(ENDED, void=True), DAY * 9, ReviewState.NOT_NEEDED),
    ],
)
def test_where_a_review_stands(use: Use, after: timedelta, state: ReviewState) -> None:
    assert use.review_state(T0 + after) is state


def test_an_overdue_review_blocks_its_groups_and_no_others() -> None:
    late = T0 + DAY
    assert blocked_groups([ENDED], ["sre", "release"], late) == {"sre": "lease-1"}
    assert blocked_groups([ENDED], ["sre", "dba"], late) == {"sre": "lease-1", "dba": "lease-1"}
    assert blocked_groups([REVIEWED, replace(ENDED, void=True)], ["sre"], late) == {}
    assert blocked_groups([ENDED], ["sre"], late - TICK) == {}


@given(st.integers(0, 2**192 - 1), st.randoms(use_true_random=False))
def test_a_code_is_read_however_it_is_typed(number: int, chance: object) -> None:
    id_, secret = of_random(number, ID_LENGTH), of_random(number >> 5 * ID_LENGTH, SECRET_LENGTH)
    text = written(id_, secret).reveal()
    for typed in (text, text.lower(), text.replace("-", " "), text.replace("-", ""), f" {text}\n"):
        code = read_code(Secret(typed))
        assert (code.id, code.secret.reveal()) == (id_, secret)


@given(st.text(min_size=1, max_size=60))
def test_no_other_text_is_a_code(text: str) -> None:
    try:
        code = read_code(Secret(text))
    except Unauthenticated:
        return
    assert set(code.id + code.secret.reveal()) <= set(ALPHABET)


def test_a_hash_is_of_both_secret_and_salt() -> None:
    hashes = {hashed(Secret(secret), salt, 2**4) for secret in ("A", "B") for salt in (b"1" * 16, b"2" * 16)}
    assert len(hashes) == 4


def test_each_field_is_in_what_a_login_is_for() -> None:
    asked = {
        "template": "t",
        "parameters": {"a": "b"},
        "account": "c",
        "environment": "e",
        "resource": "r",
        "ttl": timedelta(minutes=1),
        "reason": "why",
        "incident": "i",
        "task_id": "task",
        "agent": "x",
        "plan": "p",
    }
    told = use_fields(**asked)  # type: ignore[arg-type]
    for name in asked:
        other = {**asked, name: timedelta(minutes=2) if name == "ttl" else {"a": "c"} if name == "parameters" else "z"}
        assert use_fields(**other) != told  # type: ignore[arg-type]
