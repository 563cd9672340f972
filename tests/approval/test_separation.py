"""Who is barred, by whatever name they are meant."""

from __future__ import annotations

import pytest

from broker.approval.separation import DELEGATOR, interests, meant, owners_of
from broker.identity.agent import Agent, AgentPattern, Person, Quotas, Registry, Tier
from broker.identity.pattern import IdPattern
from broker.identity.spiffe_id import SpiffeId

ADA = Person("https://idp.test", "u-1", "Ada Lovelace", "ada@x.test")
BOB = Person("https://idp.test", "u-2", "Bob", "bob@x.test")
# The same subject at another provider, and the same name: other people.
ADA2 = Person("https://other.test", "u-1", "Ada Lovelace", "lovelace@y.test")
PEOPLE = {"ada": ADA, "bob": BOB, "lovelace": ADA2}


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", ""),
        ("nobody", ""),
        ("ada", "ada"),
        ("  ADA ", "ada"),
        ("ada@x.test", "ada"),
        ("Ada <ADA@X.TEST>", "ada"),
        ("https://idp.test#u-1", "ada"),
        ("u-1", "ada lovelace"),  # could be either, so both
        ("Ada Lovelace", "ada lovelace"),
        ("lovelace", "lovelace"),
        ("ada, bob", "ada bob"),
        ("ada;bob@x.test", "ada bob"),
        ("bob and ada", "ada bob"),
        ("ａｄａ", "ada"),  # full width
        ("adamant", ""),
        ("ada\n\tbob", "ada bob"),
        ('"Ada Lovelace" (ada)', "ada lovelace"),
    ],
)
def test_whom_a_claimed_text_could_mean(text: str, keys: str) -> None:
    assert {key for key, person in PEOPLE.items() if person in meant(text, PEOPLE)} == set(keys.split())


def test_everybody_with_a_part_in_it_once_with_the_first_part() -> None:
    found = interests(
        owners=[ADA], sponsor="bob, ada", on_behalf_of=[("https://h.test", "human")], delegators=[BOB], people=PEOPLE
    )
    assert [(each.person, each.part) for each in found] == [
        (("https://idp.test", "u-1"), "owns the agent"),
        (("https://idp.test", "u-2"), "sponsors the task"),
        (("https://h.test", "human"), "is the human it acts for"),
    ]


def test_whoever_only_handed_it_on_is_barred_too() -> None:
    found = interests(owners=[], sponsor="", on_behalf_of=[], delegators=[BOB, BOB], people=PEOPLE)
    assert [(each.person, each.part) for each in found] == [(("https://idp.test", "u-2"), DELEGATOR)]


def test_owners_are_found_by_entry_whether_it_is_an_id_or_a_pattern() -> None:
    rest = (Tier.AUTONOMOUS, frozenset[str](), frozenset[str](), Quotas(1, 1))
    registry = Registry(
        [Agent(SpiffeId.parse("spiffe://x/a"), ADA, *rest, principal="a")],
        [AgentPattern("many", IdPattern.parse("spiffe://x/many/{job}"), BOB, *rest)],
    )
    assert owners_of(["many", "gone", "a", "many"], registry) == [BOB, ADA, BOB]
    assert owners_of(["spiffe://x/a"], registry) == []
