"""What a person may have done for them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.errors import Denied, Reason
from broker.identity.agent import May, Person
from broker.identity.behalf import Human, Wanted, check_within, is_enabled, person_behind
from tests.forge import NOW

MAY = May(frozenset({"read", "write"}), frozenset({"dev", "staging"}), frozenset({"orders", "users"}))
ANY = May(frozenset({"read"}), frozenset({"dev"}))


def person(may: May | None = None, *, disabled: bool = False, subject: str = "ada") -> Person:
    return Person("https://idp.test", subject, "Ada", disabled=disabled, may=may)


@pytest.mark.parametrize(
    ("may", "wanted", "word"),
    [
        (MAY, Wanted("orders", "dev", "read"), ""),
        (MAY, Wanted("users", "staging", "write"), ""),
        (ANY, Wanted("whichever", "dev", "read"), ""),
        (MAY, Wanted("orders", "dev", "destructive"), "access destructive"),
        (MAY, Wanted("orders", "prod", "read"), "environment prod"),
        (MAY, Wanted("order", "dev", "read"), "template order"),
        (ANY, Wanted("whichever", "dev", "write"), "access write"),
        (None, Wanted("orders", "dev", "read"), "nothing"),
    ],
)
def test_within_what_a_person_may_have_done(may: May | None, wanted: Wanted, word: str) -> None:
    if not word:
        check_within(person(may), wanted)
        return
    with pytest.raises(Denied) as refused:
        check_within(person(may), wanted)
    assert refused.value.reason is Reason.ON_BEHALF_OF_EXCEEDED
    assert word in refused.value.message
    assert refused.value.metadata["person"] == "https://idp.test#ada"


def test_a_task_for_nobody_is_bounded_by_nobody() -> None:
    check_within(None, Wanted("orders", "prod", "destructive"))


def test_who_is_not_there_or_disabled_is_nobody() -> None:
    people = {
        "ada": person(ANY),
        "bea": person(ANY, disabled=True, subject="bea"),
        "dee": replace(person(ANY, subject="dee"), until=NOW),
    }
    assert person_behind("https://idp.test", "ada", people, NOW) is people["ada"]
    assert is_enabled(Human("https://idp.test", "ada", "whatever"), people, NOW)
    for issuer, subject in (
        ("https://idp.test", "bea"),
        ("https://idp.test", "dee"),
        ("https://idp.test", "cyd"),
        ("https://other.test", "ada"),
    ):
        assert not is_enabled(Human(issuer, subject, "Ada"), people, NOW)
        with pytest.raises(Denied) as refused:
            person_behind(issuer, subject, people, NOW)
        assert refused.value.reason is Reason.ON_BEHALF_OF_NOBODY
