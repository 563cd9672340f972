"""The digest that names what was asked: the same for the same, for ever, and another for anything else."""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any

import pytest

from broker.scope.request import AccessRequest, Digested, text_digest

REQUEST = AccessRequest(
    request_id="r1",
    template="orders",
    task_id="t1",
    account="dev",
    environment="dev",
    resource="orders",
    ttl=timedelta(minutes=5),
    parameters={"day": "1"},
    step="s",
    intent="i",
    reason="because",
    ticket="T-1",
    prompt="p",
    tool_call="c",
    plan="1.",
    recipient_public_key=b"k",
    plan_id="plan-1",
    delegation_id="del-1",
    subject_public_key="ssh-ed25519 A",
    wrap=timedelta(seconds=60),
)
BARE = replace(REQUEST, plan_id="", delegation_id="", subject_public_key="", wrap=None)


def test_a_digest_that_is_in_a_ledger_already_stays_what_it_was() -> None:
    """A request that is sent again after an update is recognised by it."""
    assert REQUEST.digest() == "66d2606d6dddfa5c4d8423a0b10ced9cfd6f4fb08e4db74962ae17e363a7480b"
    assert BARE.digest() == "afe1ec688d751be6ed206a5bcde446e99ea2f1fa75e97185513e8febe01c65ed"


def test_every_field_is_in_it() -> None:
    others: dict[str, Any] = {
        "ttl": timedelta(minutes=5, microseconds=1),
        "parameters": {"day": "2"},
        "recipient_public_key": b"l",
        "wrap": timedelta(seconds=60, microseconds=1),
    }
    changed = [replace(REQUEST, **{each.name: others.get(each.name, "other")}) for each in fields(AccessRequest)]
    assert len({each.digest() for each in (REQUEST, BARE, *changed)}) == len(changed) + 2


@pytest.mark.parametrize("text", ["do it", "é", " "])
def test_a_text_of_which_the_digest_was_kept_stands_for_it(text: str) -> None:
    digest = hashlib.sha256(text.encode()).hexdigest()
    kept = Digested(digest)
    assert text_digest(text) == text_digest(kept) == kept.sha256 == digest
    assert kept == f"sha256:{digest}"
    assert replace(REQUEST, prompt=kept, plan=kept) != REQUEST
    assert replace(REQUEST, prompt=kept).digest() == replace(REQUEST, prompt=text).digest()


def test_nothing_said_has_no_digest() -> None:
    assert text_digest("") == ""
