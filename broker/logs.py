"""Log lines: one structured event per line, on standard error, never a secret, and not the same one for ever.

The renderer refuses what must not be printed: a :class:`~broker.secret.Secret` renders as its mask,
and a protobuf message is never rendered field by field, but by name only.
"""

from __future__ import annotations

import logging
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

import orjson
import structlog
from google.protobuf.message import Message

from broker.secret import Secret

# So many of the same are written before any is kept back: things that happened, and not one that goes on.
FREELY = 3
# Seconds from one to the next that is written, twice as long each time; what was not heard for twice that had ended.
SOONEST, LONGEST = 5.0, 600.0
# Different lines that are remembered; the one that was heard least recently goes first.
MOST_LINES = 512

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure(level: str, form: str) -> None:
    """Set up structlog for the process. ``form``: ``json`` or ``console``."""
    shared: list[Any] = [
        structlog.processors.add_log_level,
        Repeats(monotonic),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if form == "console":
        # Plain tracebacks: the pretty ones show local variables, and those hold secrets.
        plain = structlog.dev.plain_traceback
        renderer: list[Any] = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
        factory: Any = structlog.PrintLoggerFactory(sys.stderr)
    else:
        renderer = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_dumps)]
        factory = structlog.BytesLoggerFactory(sys.stderr.buffer)
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    # Libraries that log by themselves may put requests, headers and all, into debug lines.
    logging.basicConfig(level=max(LEVELS[level], logging.WARNING), stream=sys.stderr)
    # It warns at every tick at which the one before is still under way. What hangs is told by who waits for it.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)


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


def _dumps(event: Any, **_: Any) -> bytes:
    return orjson.dumps(event, default=_render)


def _render(value: object) -> str:
    if isinstance(value, Secret):
        return str(value)
    if isinstance(value, Message):
        return f"<{value.DESCRIPTOR.full_name}>"
    return repr(value)
