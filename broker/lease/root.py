"""Does the upstream still take the broker's own credential? What is known of it, connector by connector.

Whoever speaks with an upstream reports what it saw: issuing, revoking, tending. A connector whose root credential is
refused stops issuing at once: what it would issue it could perhaps not end, and each further try may lock the
credential. Others go on. It comes back by itself, on proof and not on hope: what was refused has to work again. Where
that was issuing, a success of another kind lets one request through to try. Time is an argument; nothing is kept over
a restart, because the first refused call says it anew.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from broker.errors import NotReady, Reason


class Work(StrEnum):
    """What the broker's own credential is used for."""

    ISSUE = "issue"
    REVOKE = "revoke"
    TEND = "tend"


@dataclass(slots=True)
class RootRefusal:
    """Of one connector: since when, why, and which kinds of work were refused and have not worked since."""

    since: datetime
    why: str = ""  # as it was said last
    refused: set[Work] = field(default_factory=set)
    trial: bool = False  # the next request may try


@dataclass(frozen=True, slots=True)
class RootNews:
    """For the trail: a root credential began to be refused, or is taken again."""

    connector: str
    refused: bool
    why: str
    seen_by: Work
    since: datetime


class Roots:
    """Every connector's. Not locked: it belongs to the event loop."""

    def __init__(self) -> None:
        self._refusals: dict[str, RootRefusal] = {}
        self._news: list[RootNews] = []

    def refused(self, connector: str, why: str, work: Work, now: datetime) -> None:
        """The upstream has just refused the broker itself."""
        known = self._refusals.get(connector)
        if known is None:
            known = self._refusals[connector] = RootRefusal(now)
            self._news.append(RootNews(connector, True, why, work, now))
        known.why = why
        known.refused.add(work)
        known.trial = False

    def works(self, connector: str, work: Work) -> None:
        """The upstream has just taken it."""
        known = self._refusals.get(connector)
        if known is None:
            return
        known.refused.discard(work)
        if not known.refused:
            del self._refusals[connector]
            self._news.append(RootNews(connector, False, known.why, work, known.since))
        elif known.refused == {Work.ISSUE}:
            known.trial = True

    def check(self, connector: str) -> None:
        """Raises :class:`NotReady` (CONNECTOR_ROOT_REFUSED) where nothing may be issued. Uses up a trial."""
        known = self._refusals.get(connector)
        if known is None:
            return
        if known.trial:
            known.trial = False
            return
        raise NotReady(
            Reason.CONNECTOR_ROOT_REFUSED,
            f"the upstream of connector {connector} refuses the broker's own credential, so nothing is issued by it.",
            hint="Retry later; operators: see /readyz and operators.md, `broker_connector_root_refused`.",
            metadata={"connector": connector},
        )

    def only(self, connectors: Collection[str]) -> None:
        """There are no others any more, so nothing is refused of them."""
        for gone in self._refusals.keys() - set(connectors):
            del self._refusals[gone]

    @property
    def standing(self) -> Mapping[str, RootRefusal]:
        """Whose is refused now."""
        return self._refusals

    def take_news(self) -> list[RootNews]:
        """What has not been told yet."""
        news, self._news = self._news, []
        return news

    def put_back(self, news: list[RootNews]) -> None:
        """It could not be told."""
        self._news = [*news, *self._news]
