"""Values as people type them: spans of time, NAME=VALUE pairs, texts that may come from a file."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from broker.client.spans import parse_span
from broker.clock import SystemClock
from broker.errors import InvalidInput
from broker.secret import Secret

# More than a whole request may have; what is read beyond is not wanted.
_MOST_BYTES = 64 * 1024
_AGO = re.compile(r"(?:([0-9]{1,5})d|([0-9]{1,6})h)")
_DATE = len("2026-01-31")


class Span(click.ParamType):  # type: ignore[type-arg]  # generic only in newer click
    """``90s``, ``5m``, ``1h30m``; more than nothing, or with ``zero`` also nothing (``0s``)."""

    name = "span"

    def __init__(self, *, zero: bool = False, most: timedelta | None = None) -> None:
        self._zero = zero
        self._most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """The span. Fails with what is wrong and an example."""
        if isinstance(value, timedelta):
            return value
        if self._zero and value == "0s":
            return timedelta()
        name = param.name if param and param.name else "value"
        try:
            span = parse_span(value, name)
        except InvalidInput as error:
            self.fail(f"{error.message} {error.hint}", param, ctx)
        if self._most is not None and span > self._most:
            self.fail(f"{value} is more than {self._most}.", param, ctx)
        return span


class When(click.ParamType):  # type: ignore[type-arg]  # generic only in newer click
    """``2026-01-31`` (its beginning, UTC), a time in RFC 3339, or ``90d``, ``36h``: so long ago."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """The moment, in UTC. Fails with what would be right."""
        if isinstance(value, datetime):
            return value
        if ago := _AGO.fullmatch(value):
            return SystemClock().now() - timedelta(days=int(ago[1] or 0), hours=int(ago[2] or 0))
        moment = _moment(value)
        if moment is None:
            self.fail(f"{value!a} is no date (2026-01-31), RFC 3339 time or span back (90d, 36h).", param, ctx)
        return moment


def _moment(value: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None and len(value) != _DATE:
            return None
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):  # the first hours of all, in another time zone, are none in UTC
        return None


class Text(click.ParamType):  # type: ignore[type-arg]  # generic only in newer click
    """A text; ``@FILE`` is the file's content, ``@-`` standard input's, ``@@...`` a text that begins with @."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text itself, or what the file holds."""
        if not isinstance(value, str) or not value.startswith("@"):
            return str(value)
        if value.startswith("@@"):
            return value[1:]
        try:
            if value == "@-":
                data = sys.stdin.buffer.read(_MOST_BYTES + 1)
            else:
                with Path(value[1:]).open("rb") as file:
                    data = file.read(_MOST_BYTES + 1)
            text = data.decode()
        except OSError as error:
            self.fail(f"{value[1:]} cannot be read: {error.strerror}.", param, ctx)
        except UnicodeDecodeError:
            self.fail(f"{value[1:]} is not UTF-8 text.", param, ctx)
        if len(data) > _MOST_BYTES:
            self.fail(f"{value[1:]} has more than {_MOST_BYTES} bytes.", param, ctx)
        return text


class TokenFile(click.ParamType):  # type: ignore[type-arg]  # generic only in newer click
    """A file that holds one token, on one line; ``-`` is standard input. What it holds is never told."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Secret:
        """The token."""
        if isinstance(value, Secret):
            return value
        if value != "-" and not Path(str(value)).exists():
            self.fail(f"{value} does not exist.", param, ctx)
        token = Text().convert(f"@{value}", param, ctx).strip()
        if not token or any(each.isspace() for each in token):
            self.fail(f"{value} does not hold one token.", param, ctx)
        return Secret(token)


class Pair(click.ParamType):  # type: ignore[type-arg]  # generic only in newer click
    """``NAME=VALUE``; the value may contain further ``=``."""

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """The two parts."""
        if isinstance(value, tuple):
            return value
        name, equals, text = str(value).partition("=")
        if not equals or not name:
            self.fail(f"{value!a} is not NAME=VALUE.", param, ctx)
        return name, text
