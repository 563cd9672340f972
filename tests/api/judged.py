"""How often the caller of an open stream is judged, so that "at once" can be counted and need not be timed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from broker.api.entrances import AgentsEntrance
from broker.identity.agent import Peer
from broker.issuance.caller import Caller
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
    judged, admit, check = Judged(), AgentsEntrance.admit, AgentsEntrance.check_welcome

    def admitted(self: AgentsEntrance, who: Peer, method: str) -> Caller:
        caller = admit(self, who, method)
        judged.welcome[str(who.spiffe_id)] += 1
        return caller

    def checked(self: AgentsEntrance, who: Peer) -> None:
        check(self, who)
        judged.welcome[str(who.spiffe_id)] += 1

    with monkeypatch.context() as patched:
        patched.setattr("broker.api.streams.RECHECK_SECONDS", RECHECK_SECONDS)
        # The one for streams of ours, the other for those of ready-made services, such as health.
        patched.setattr(AgentsEntrance, "admit", admitted)
        patched.setattr(AgentsEntrance, "check_welcome", checked)
        yield judged
