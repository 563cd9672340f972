"""A root credential that is refused, and when it may be used again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from broker.errors import NotReady, Reason
from broker.lease.root import RootNews, Roots, Work

NOW = datetime(2031, 5, 1, 12, tzinfo=UTC)


def roots(*refused: Work) -> Roots:
    made = Roots()
    for work in refused:
        made.refused("db", "403", work, NOW)
    return made


def issues(made: Roots, connector: str = "db") -> bool:
    try:
        made.check(connector)
    except NotReady as closed:
        assert closed.reason is Reason.CONNECTOR_ROOT_REFUSED
        assert closed.metadata == {"connector": connector}
        assert closed.hint
        return False
    return True


@pytest.mark.parametrize("work", list(Work))
def test_a_refusal_of_any_kind_stops_issuing_on_this_connector_alone(work: Work) -> None:
    made = roots(work)
    assert not issues(made)
    assert issues(made, "other")
    assert list(made.standing) == ["db"]


@pytest.mark.parametrize("work", list(Work))
def test_what_was_refused_and_works_again_opens_it(work: Work) -> None:
    made = roots(work)
    made.works("db", work)
    assert issues(made)
    assert not made.standing


@pytest.mark.parametrize("other", [Work.TEND, Work.REVOKE])
def test_where_issuing_was_refused_another_success_lets_one_request_try(other: Work) -> None:
    made = roots(Work.ISSUE)
    made.works("db", other)
    assert [issues(made), issues(made)] == [True, False]
    assert [(name, each.trial) for name, each in made.standing.items()] == [("db", False)]  # not proven yet
    made.refused("db", "403 again", Work.ISSUE, NOW)  # what came of it
    assert not issues(made)
    made.works("db", other)
    assert issues(made)
    made.works("db", Work.ISSUE)
    assert [issues(made), issues(made)] == [True, True]


@pytest.mark.parametrize("other", [Work.TEND, Work.ISSUE])
def test_what_cannot_be_revoked_is_not_issued_whatever_else_works(other: Work) -> None:
    made = roots(Work.REVOKE)
    made.works("db", other)
    assert not issues(made)


def test_all_kinds_that_were_refused_have_to_work() -> None:
    made = roots(Work.REVOKE, Work.TEND)
    made.works("db", Work.TEND)
    assert not issues(made)
    made.works("db", Work.REVOKE)
    assert issues(made)


def test_it_is_told_once_when_it_begins_and_once_when_it_ends() -> None:
    made = roots(Work.ISSUE, Work.REVOKE, Work.ISSUE)
    (begun,) = made.take_news()
    assert begun == RootNews("db", True, "403", Work.ISSUE, NOW)
    assert made.take_news() == []
    for work in Work:
        made.works("db", work)
    (ended,) = made.take_news()
    assert ended == RootNews("db", False, "403", Work.REVOKE, NOW)
    made.put_back([ended])  # it could not be told
    assert made.take_news() == [ended]


def test_what_could_not_be_told_is_told_before_what_happened_since() -> None:
    made = roots(Work.TEND)
    told = made.take_news()
    made.works("db", Work.TEND)
    made.put_back(told)
    assert [each.refused for each in made.take_news()] == [True, False]


def test_the_last_answer_is_why_and_the_first_is_since_when() -> None:
    made = roots(Work.TEND)
    made.refused("db", "locked", Work.TEND, NOW + timedelta(minutes=1))
    standing = made.standing["db"]
    assert (standing.why, standing.since, standing.trial) == ("locked", NOW, False)


def test_what_works_all_the_time_is_no_news() -> None:
    made = Roots()
    made.works("db", Work.ISSUE)
    assert made.take_news() == []


def test_a_connector_that_is_gone_is_no_alarm() -> None:
    made = roots(Work.TEND)
    made.refused("other", "403", Work.TEND, NOW)
    made.only({"other"})
    assert list(made.standing) == ["other"]


def test_a_refusal_that_comes_late_takes_the_trial_back() -> None:
    made = roots(Work.ISSUE)
    made.works("db", Work.TEND)
    made.refused("db", "403, of one that was under way", Work.ISSUE, NOW)
    assert not issues(made)
