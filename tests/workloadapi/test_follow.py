"""Following without waiting: what is kept, when it is asked again, and what ends it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from broker.errors import BrokerError, Reason, Unauthenticated
from broker.workloadapi.follow import LONGEST_PAUSE_SECONDS, LOOK_SECONDS, Follower, pause
from broker.workloadapi.source import Update
from tests.patience import PATIENCE

AWAY = Unauthenticated(Reason.SVID_MISSING, "away.")


def update(number: int) -> Update:
    return Update(b"chain %d" % number, b"key", {"example.org": b"roots"})


class FakeApi:
    """Says ``now``, or raises it; ``push`` says something new from another thread, as py-spiffe does."""

    def __init__(self, now: Update | Exception) -> None:
        self.now = now
        self.closed = threading.Event()
        self.subscribers: list[Callable[[], None]] = []

    def current(self) -> Update:
        if isinstance(self.now, Exception):
            raise self.now
        return self.now

    def subscribe(self, changed: Callable[[], None]) -> None:
        self.subscribers.append(changed)

    def push(self, now: Update) -> None:
        self.now = now
        for changed in self.subscribers:
            changed()

    def close(self) -> None:
        self.closed.set()


def test_the_first_answer_is_waited_for_and_its_failure_told() -> None:
    assert Follower(FakeApi(update(1))).latest == update(1)
    with pytest.raises(Unauthenticated, match="away"):
        Follower(FakeApi(AWAY))


def test_pauses_grow_and_have_an_end() -> None:
    assert pause(0) == LOOK_SECONDS
    pauses = [pause(failures) for failures in range(1, 60)]
    assert pauses[:7] == [0.5, 1, 2, 4, 8, 16, 30]
    assert set(pauses[6:]) == {LONGEST_PAUSE_SECONDS}
    assert pause(10**9) == LONGEST_PAUSE_SECONDS


@pytest.mark.parametrize("failure", [AWAY, RuntimeError("the key is 123"), KeyError("x")])
def test_a_failure_keeps_the_last_good_and_is_asked_again_ever_more_slowly(failure: Exception) -> None:
    api = FakeApi(update(1))
    follower = Follower(api)
    api.now = failure
    assert [follower.look() for _ in range(4)] == [0.5, 1, 2, 4]
    assert follower.latest == update(1)
    assert isinstance(follower.error, BrokerError)
    assert "123" not in str(follower.error)
    api.now = update(2)
    assert follower.look() == LOOK_SECONDS
    assert (follower.latest, follower.error) == (update(2), None)
    api.now = failure
    assert follower.look() == 0.5  # from the beginning


def test_only_what_is_new_is_told() -> None:
    api, told = FakeApi(update(1)), []
    follower = Follower(api)
    follower.start(lambda: told.append(follower.latest))
    pushed = threading.Event()
    follower._changed = lambda: (told.append(follower.latest), pushed.set())
    api.push(update(1))
    api.push(update(2))
    assert pushed.wait(PATIENCE)
    assert told == [update(2)]
    follower.close()
    assert api.closed.wait(PATIENCE)


def test_closing_before_following_lets_go_as_well() -> None:
    api = FakeApi(update(1))
    Follower(api).close()
    assert api.closed.is_set()
