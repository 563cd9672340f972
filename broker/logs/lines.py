"""How a log line looks, and where it goes.

The renderer refuses what must not be printed: a :class:`~broker.secret.Secret` renders as its mask,
and a protobuf message is never rendered field by field, but by name only.
"""

from __future__ import annotations

import logging
import sys
from time import monotonic
from typing import Any

import orjson
import structlog
from google.protobuf.message import Message

from broker.logs.repeats import Repeats
from broker.secret import Secret

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


def _dumps(event: Any, **_: Any) -> bytes:
    return orjson.dumps(event, default=_render)


def _render(value: object) -> str:
    if isinstance(value, Secret):
        return str(value)
    if isinstance(value, Message):
        return f"<{value.DESCRIPTOR.full_name}>"
    return repr(value)
