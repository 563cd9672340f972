"""How often the caller of an open stream is judged, so that "at once" can be counted and need not be timed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from broker.api.door import Door
from broker.identity.agent import Peer
from tests.api.served import ANALYST
from tests.patience import becomes_true

# Streams are judged each second (broker/api/streams.py); tests need not wait for it.
RECHECK_SECONDS = 0.05


class Judged:
    """Judgements that found the caller welcome, by SPIFFE ID."""

    def __init__(self) -> None:
        self.welcome: Counter[str] = Counter()

    async def again(self, spiffe_id: str = ANALYST, times: int = 2) -> None:
        """Wait until ``spiffe_id`` was judged so many times more, and found welcome."""
        enough = self.welcome[spiffe_id] + times
        await becomes_true(lambda: self.welcome[spiffe_id] >= enough)


@contextmanager
def judging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Judged]:
    """Count the judgements of every door, and let there be more of them."""
    judged, check = Judged(), Door.check_denied

    def counted(self: Door, peer: Peer) -> None:
        check(self, peer)  # the last of all that is asked again, and the same for every kind of stream
        judged.welcome[str(peer.spiffe_id)] += 1

    with monkeypatch.context() as patched:
        patched.setattr("broker.api.streams.RECHECK_SECONDS", RECHECK_SECONDS)
        patched.setattr(Door, "check_denied", counted)
        yield judged
