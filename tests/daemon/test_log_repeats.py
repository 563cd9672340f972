"""What fails at each tick is told, and does not fill the log."""

from __future__ import annotations

from typing import Any

import pytest
import structlog

from broker.logs.repeats import FREELY, LONGEST, MOST_LINES, SOONEST, Repeats


class Log:
    """Lines as they come out, at times that a test says."""

    def __init__(self) -> None:
        self.now = 0.0
        self._repeats = Repeats(lambda: self.now)

    def say(self, level: str = "error", **about: Any) -> dict[str, Any] | None:
        try:
            return self._repeats(None, level, {"level": level, **about})
        except structlog.DropEvent:
            return None


@pytest.fixture
def log() -> Log:
    return Log()


def test_what_fails_each_second_for_six_hours_is_some_fifty_lines(log: Log) -> None:
    written, kept_back, seconds = [], 0, 6 * 3600
    for second in range(seconds):
        log.now = float(second)
        if (said := log.say(event="it cannot be reached", reason="X")) is not None:
            written.append(log.now)
            kept_back += said.get("kept_back", 0)
    # Three freely, then after 5 s, 10, 20, ... 600, and every ten minutes: 21600 / 600 = 36.
    assert written[:FREELY] == [0.0, 1.0, 2.0]
    assert written[FREELY : FREELY + 3] == [2.0 + SOONEST, 2.0 + 3 * SOONEST, 2.0 + 7 * SOONEST]
    assert 36 <= len(written) <= 47
    assert written[-1] - written[-2] == LONGEST
    assert 0 < seconds - len(written) - kept_back < LONGEST, "each is counted, but for those of the end"


def test_other_words_are_another_line(log: Log) -> None:
    for _ in range(10):
        log.say(event="refused", reason="X")
    assert log.say(event="refused", reason="Y") is not None
    assert log.say("warning", event="refused", reason="X") is not None
    assert log.say(event="refused", reason="X", attempt="a-1") is not None
    assert log.say(event="refused", reason="X") is None


def test_what_had_ended_and_begins_again_is_told_at_once(log: Log) -> None:
    for _ in range(10):
        log.say(event="refused")
    log.now = 2 * SOONEST
    assert log.say(event="refused") is not None, "its time had come"
    for log.now in range(11, 16):
        assert log.say(event="refused") is None
    log.now = 15 + 4 * SOONEST + 0.1
    said = log.say(event="refused")
    assert said is not None
    assert "kept_back" not in said


def test_what_comes_once_a_minute_and_what_is_no_failure_is_never_kept_back(log: Log) -> None:
    for minute in range(100):
        log.now = 60.0 * minute
        assert log.say(event="the server cannot be reached") is not None
    assert all(log.say("info", event="rpc") is not None for _ in range(100))


def test_what_is_remembered_has_a_bound(log: Log) -> None:
    for _ in range(FREELY + 1):
        last = log.say(event="first")
    assert last is None
    for number in range(MOST_LINES):
        log.say(event="another", number=number)
    assert log.say(event="first") is not None
    assert len(log._repeats._lines) == MOST_LINES
