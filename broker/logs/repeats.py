"""Log lines that say again what was just said: kept back, and counted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

# So many of the same are written before any is kept back: things that happened, and not one that goes on.
FREELY = 3
# Seconds from one to the next that is written, twice as long each time; what was not heard for twice that had ended.
SOONEST, LONGEST = 5.0, 600.0
# Different lines that are remembered; the one that was heard least recently goes first.
MOST_LINES = 512


@dataclass(slots=True)
class _Line:
    """What was last said in the same words."""

    heard: float
    freely: int = FREELY
    due: float = 0.0
    gap: float = SOONEST
    kept_back: int = 0


class Repeats:
    """A structlog processor that keeps warnings and errors back which say again, word by word, what was just said.

    What fails at each tick, as everything does while the ledger's server is away, would bury the line that says why,
    and fill the disk of the log. They are written at growing intervals, with how many were ``kept_back`` since. Another
    reason, attempt or count is another line.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        """``now``: seconds of a clock that nobody sets."""
        self._now = now
        self._lines: OrderedDict[int, _Line] = OrderedDict()

    def __call__(self, logger: Any, method: str, event: dict[str, Any]) -> dict[str, Any]:
        """The event. Raises DropEvent where it is kept back."""
        if event.get("level") not in ("warning", "error"):
            return event
        words, now = hash(repr(sorted(event.items()))), self._now()
        line = self._lines.pop(words, None)
        if line is None or now - line.heard > 2 * line.gap:
            line = _Line(now)
        self._lines[words] = line
        if len(self._lines) > MOST_LINES:
            self._lines.popitem(last=False)
        line.heard = now
        if line.freely:
            line.freely, line.due = line.freely - 1, now + line.gap
            return event
        if now < line.due:
            line.kept_back += 1
            raise structlog.DropEvent
        line.gap = min(2 * line.gap, LONGEST)
        line.due, kept_back, line.kept_back = now + line.gap, line.kept_back, 0
        return {**event, "kept_back": kept_back} if kept_back else event
