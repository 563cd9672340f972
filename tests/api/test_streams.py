"""Streams are asked again while they last: at each message, and while there is none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from broker.api import streams
from broker.api.streams import rechecked, while_welcome
from broker.errors import Denied, Reason


class Welcome:
    """Counts how often it is asked, and turns."""

    def __init__(self, times: int = 10**9) -> None:
        self.asked = 0
        self.times = times

    def __call__(self) -> None:
        self.asked += 1
        if self.asked > self.times:
            raise Denied(Reason.AGENT_DENIED, "not any more.")


class Source:
    """A stream that says what it is told to and then waits; ``ended`` tells that it was let go."""

    def __init__(self, *said: str, waits: bool = True, fails: Exception | None = None) -> None:
        self.said, self.waits, self.fails = said, waits, fails
        self.ended = False

    async def __call__(self) -> AsyncIterator[str]:
        try:
            for each in self.said:
                yield each
            if self.fails:
                raise self.fails
            if self.waits:
                await asyncio.Event().wait()
        finally:
            self.ended = True


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "RECHECK_SECONDS", 0.005)


async def test_everything_comes_through_in_order_and_the_end_ends_it() -> None:
    source, welcome = Source("a", "b", waits=False), Welcome()
    assert [each async for each in rechecked(source(), welcome)] == ["a", "b"]
    assert welcome.asked >= 3  # each message, and the end
    assert source.ended


async def test_a_silent_stream_is_asked_again_and_cut() -> None:
    source, welcome = Source("a"), Welcome(times=5)
    stream = rechecked(source(), welcome)
    assert await anext(stream) == "a"
    with pytest.raises(Denied):
        await anext(stream)
    assert welcome.asked == 6
    assert source.ended


async def test_a_message_for_somebody_who_is_not_welcome_any_more_is_not_delivered() -> None:
    source, welcome = Source("a", "secret"), Welcome(times=1)
    stream = rechecked(source(), welcome)
    assert await anext(stream) == "a"
    with pytest.raises(Denied):
        await anext(stream)
    assert source.ended


async def test_a_failure_of_the_stream_is_the_streams() -> None:
    source = Source("a", fails=LookupError("gone"))
    with pytest.raises(LookupError, match="gone"):
        [each async for each in rechecked(source(), Welcome())]
    assert source.ended


async def test_cancelling_the_reader_lets_the_stream_go() -> None:
    source = Source("a")
    heard = asyncio.Event()

    async def read() -> None:
        async for _ in rechecked(source(), Welcome()):
            heard.set()

    reader = asyncio.create_task(read())
    await heard.wait()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert source.ended


async def test_work_that_is_no_stream_is_cut_as_well_and_waited_for() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # a clean-up that awaits is waited for
            ended.set()

    with pytest.raises(Denied):
        await while_welcome(work(), Welcome(times=2))
    assert ended.is_set()


async def test_many_silent_streams_leave_nothing_behind() -> None:
    before = len(asyncio.all_tasks())
    sources = [Source() for _ in range(200)]

    async def read(source: Source) -> None:
        with pytest.raises(Denied):
            async for _ in rechecked(source(), Welcome(times=3)):
                pass

    await asyncio.gather(*map(read, sources))
    assert all(source.ended for source in sources)
    assert len(asyncio.all_tasks()) == before
