"""The digest a yes is bound to: whatever could change what was agreed to changes it, and nothing else does."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.approval.digest import Terms, check_digest, much_less
from broker.errors import Conflict, Reason
from broker.identity.strict_json import NotStrictJson, parse_object
from broker.scope.model import AccessClass, Scope
from broker.scope.request import AccessRequest, Digested, text_digest

REQUEST = AccessRequest(
    request_id="r1",
    template="orders",
    task_id="task-1",
    account="prod",
    environment="prod",
    resource="orders",
    ttl=timedelta(minutes=5),
    parameters={"day": "2026-01-01"},
    step="execute",
    intent="fix",
    reason="because",
    ticket="OPS-1",
    prompt="do it",
    tool_call="psql",
    plan="1. look",
    recipient_public_key=b"k" * 32,
)
SCOPE = Scope(
    template="orders",
    template_digest="t" * 64,
    connector="bao",
    account="prod",
    environment="prod",
    resource="orders",
    access=AccessClass.WRITE,
    actions=("UPDATE", "SELECT"),
    parameters={"day": "2026-01-01"},
    ttl=timedelta(minutes=5),
    grant={"role": "x"},
)
TERMS = Terms("default", "spiffe://x/a", "a", REQUEST, SCOPE, "IMMEDIATE", "p" * 64, ("g1", "g2"), ("one", "two"))


def of_request(**changes: Any) -> Terms:
    return replace(TERMS, request=replace(REQUEST, **changes))


def of_scope(**changes: Any) -> Terms:
    return replace(TERMS, scope=replace(SCOPE, **changes))


def test_the_canonical_bytes_are_what_the_documentation_says() -> None:
    told = parse_object(TERMS.canonical())
    assert (told["format"], told["version"]) == ("jit-broker/access-request", 1)
    assert set(told) == {
        *("format", "version", "tenant", "holder", "principal", "task", "template", "template_digest", "connector"),
        *("contract_class", "account", "environment", "resource", "actions", "access", "parameters", "ttl_us"),
        *("policy_digest", "gates", "approvals", "step", "intent", "ticket", "reason", "prompt", "tool_call", "plan"),
        *("recipient_public_key", "plan_id", "delegation_id"),
    }
    assert told["ttl_us"] == 300_000_000
    assert told["plan"] == hashlib.sha256(b"1. look").hexdigest()
    assert TERMS.digest() == hashlib.sha256(TERMS.canonical()).hexdigest()


def test_a_digest_that_people_decided_on_stays_what_it_was() -> None:
    """Requests wait while the broker is replaced: another spelling of the same terms would void every yes."""
    cited = of_request(
        plan_id="plan-1", delegation_id="del-1", subject_public_key="ssh-ed25519 A", wrap=timedelta(seconds=60)
    )
    assert TERMS.digest() == "184dcf0c33066153d25e1d2ca35426c4c4216b4e66058ee3aec601fba8c228ba"
    assert cited.digest() == "57c4eedca44e4da259df2e86e0ec1f3fc30c33992e7599bdad471650d5319d4f"
    assert TERMS.ask_digest() == "e554f39afb015b4bd0e8f7adc88afc6deb10e2190c500e53c7a049b7b75467ec"
    assert cited.ask_digest() == "52fcd668bb51a4d1b043092eda7490f5267703c93166da3c494c64c917717e74"


def test_what_a_person_saw_is_what_is_asked() -> None:
    check_digest("d" * 64, "d" * 64, "areq-1")
    with pytest.raises(Conflict, match="areq-1") as refused:
        check_digest("e" * 64, "d" * 64, "areq-1")
    assert refused.value.reason is Reason.APPROVAL_DIGEST_MISMATCH
    assert refused.value.metadata == {"accessRequestId": "areq-1"}


CHANGED = [
    replace(TERMS, tenant="other"),
    replace(TERMS, holder="spiffe://x/b"),
    replace(TERMS, principal="b"),
    replace(TERMS, contract_class="EXPIRY_ONLY"),
    replace(TERMS, policy_digest="q" * 64),
    replace(TERMS, gates=("g1",)),
    replace(TERMS, approvals=("one",)),
    of_request(plan_id="plan-1"),
    of_request(delegation_id="del-1"),
    of_request(subject_public_key="ssh-ed25519 A"),
    of_request(subject_public_key="ssh-ed25519 B"),
    of_request(wrap=timedelta(seconds=60)),
    of_request(wrap=timedelta(seconds=61)),
    *(
        of_request(**{name: "other"})
        for name in ("task_id", "step", "intent", "reason", "ticket", "prompt", "tool_call")
    ),
    of_request(plan="1. look "),
    of_request(plan=""),
    of_request(recipient_public_key=b""),
    of_scope(template="other"),
    of_scope(template_digest="u" * 64),
    of_scope(connector="other"),
    of_scope(account="dev"),
    of_scope(environment="dev"),
    of_scope(resource="users"),
    of_scope(access=AccessClass.READ),
    of_scope(actions=("SELECT",)),
    of_scope(parameters={}),
    of_scope(parameters={"day": "2026-01-02"}),
    of_scope(parameters={"Day": "2026-01-01"}),
    of_scope(ttl=timedelta(minutes=5, microseconds=1)),
]


def test_every_change_of_what_is_agreed_to_is_another_digest() -> None:
    digests = [TERMS.digest(), *(each.digest() for each in CHANGED)]
    assert len(set(digests)) == len(digests)


def test_every_field_is_in_the_digest_or_named_here() -> None:
    """A field that is added later must be decided about."""
    bound = {"template", "account", "environment", "resource", "ttl", "parameters"}  # as they were bound, in the scope
    assert {each.name for each in fields(AccessRequest)} - bound == {
        *("request_id", "task_id", "step", "intent", "reason", "ticket", "prompt", "tool_call", "plan"),
        *("recipient_public_key", "plan_id", "delegation_id", "subject_public_key", "wrap"),
    }
    assert {each.name for each in fields(Scope)} == {
        *("template", "template_digest", "connector", "account", "environment", "resource", "access", "actions"),
        *("parameters", "ttl"),
        *("grant", "risk"),  # both are in the template's digest
        *("subject_public_key", "wrap"),  # the request's
    }


@pytest.mark.parametrize(
    "same",
    [
        of_request(request_id="r2"),
        replace(TERMS, gates=("g2", "g1")),
        replace(TERMS, approvals=("two", "one")),
        of_scope(actions=("SELECT", "UPDATE")),
        of_request(plan=Digested(text_digest("1. look"))),
        of_request(prompt=Digested(text_digest("do it")), tool_call=Digested(text_digest("psql"))),
    ],
)
def test_the_same_in_another_order_or_kept_by_digest_is_the_same(same: Terms) -> None:
    assert same.digest() == TERMS.digest()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"intent": "ab", "reason": "c"}, {"intent": "a", "reason": "bc"}),
        ({"intent": 'x","reason":"y', "reason": ""}, {"intent": "x", "reason": "y"}),
        ({"step": "é"}, {"step": "e\u0301"}),  # composed and decomposed: two texts, two digests
        ({"ticket": "OPS-1"}, {"ticket": "OPS-1\u0000"}),
        ({"plan": "sha256:" + text_digest("x")}, {"plan": Digested(text_digest("x"))}),
    ],
)
def test_no_text_can_stand_for_two(one: dict[str, str], other: dict[str, str]) -> None:
    assert of_request(**one).digest() != of_request(**other).digest()


@pytest.mark.parametrize(
    "bytes_",
    [
        lambda text: text.replace(b'"version":1', b'"version":1,"version":1'),  # a member twice
        lambda text: text.replace(b'"version":1', b'"version":1.0'),
        lambda text: text.replace(b":1}", b": 1}"),
        lambda text: json.dumps(json.loads(text), sort_keys=True, indent=1).encode(),
        lambda text: json.dumps(dict(reversed(json.loads(text).items()))).encode(),
        lambda text: text.replace(b"execute", b"\\u0065xecute"),
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.decode().encode("utf-16"),
        lambda text: text + b"\n",
    ],
)
def test_another_spelling_of_the_bytes_is_another_digest(bytes_: Any) -> None:
    spelled = bytes_(TERMS.canonical())
    assert spelled != TERMS.canonical()
    assert hashlib.sha256(spelled).hexdigest() != TERMS.digest()


def test_duplicate_keys_are_no_canonical_bytes() -> None:
    with pytest.raises(NotStrictJson):
        parse_object(TERMS.canonical()[:-1] + b',"tenant":"other"}')


TEXT = st.text(max_size=20).filter(lambda text: text.isprintable() or not text)
FIELDS = st.fixed_dictionaries(dict.fromkeys(("step", "intent", "reason", "ticket", "plan", "prompt"), TEXT))


@given(FIELDS, FIELDS)
@pytest.mark.slow
def test_two_requests_have_one_digest_only_if_they_are_one(one: dict[str, str], other: dict[str, str]) -> None:
    assert (of_request(**one).digest() == of_request(**other).digest()) is (one == other)


# ------------------------------------------------------------------ asked again


@pytest.mark.parametrize(
    "changes",
    [{"task_id": "t2"}, {"step": "x"}, {"intent": "x"}, {"reason": "x"}, {"prompt": "x"}, {"tool_call": "x"}],
)
def test_other_words_do_not_make_it_another_request(changes: dict[str, Any]) -> None:
    assert of_request(**changes).ask_digest() == TERMS.ask_digest()


@pytest.mark.parametrize(
    "same",
    [
        *(of_scope(ttl=timedelta(seconds=seconds)) for seconds in (299, 301, 1)),  # of the TTL see much_less
        *(
            of_request(ticket=text)
            for text in ("OPS-1 ", " ops-1", "\uff2f\uff30\uff33-1", "OPS-1\u200b", "OPS-1\u0000")
        ),
        *(of_request(plan=text) for text in ("1. look\n", "1.  LOOK", "1.\u00a0look", "1. lo\u00adok")),
    ],
)
def test_what_people_would_not_tell_apart_is_the_same_request(same: Terms) -> None:
    assert same.ask_digest() == TERMS.ask_digest()
    assert same.digest() != TERMS.digest()  # it is no other yes that it takes, but each yes is to exactly one


@pytest.mark.parametrize(
    ("asked", "other"), [(299, False), (301, False), (600, False), (150, True), (151, False), (1, True)]
)
def test_at_most_half_the_time_is_another_request(asked: int, other: bool) -> None:
    assert much_less(timedelta(seconds=asked), timedelta(seconds=300)) is other


@pytest.mark.parametrize(
    "other",
    [
        of_request(ticket="OPS-2"),
        of_request(plan="2. leave"),
        of_scope(resource="users"),
        of_scope(parameters={}),
        of_scope(actions=("SELECT",)),
        replace(TERMS, principal="b"),
        of_request(plan_id="plan-1"),
    ],
)
def test_what_people_would_judge_differently_is_another_request(other: Terms) -> None:
    assert other.ask_digest() != TERMS.ask_digest()
