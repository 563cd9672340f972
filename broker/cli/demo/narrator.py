"""Telling the story: what was checked, in plain words, and nothing secret.

A line that begins with ``ok`` was checked a moment before; everything else is told without ``ok``.
"""

from __future__ import annotations

import textwrap
from collections.abc import Awaitable, Callable
from typing import NoReturn

from broker.errors import BrokerError, Reason
from broker.secret import Secret

_WIDTH = 110


class StepFailed(Exception):
    """What the story says did not come true. The message is safe to show."""


class Narrator:
    """Writes lines, counts what was checked, and never writes a secret it knows of."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._secrets: list[Secret] = []
        self.checks = 0

    def title(self, number: int, text: str) -> None:
        """The headline of a step."""
        self.line(f"\n{number:2}  {text}")

    def checked(self, holds: bool, what: str, otherwise: str = "") -> None:
        """``what`` is so. Raises :class:`StepFailed`, with ``otherwise`` where that says more, if it is not."""
        if not holds:
            raise StepFailed(otherwise or f"this is not so: {what}")
        self.checks += 1
        self._indented("ok  ", what)

    def told(self, text: str) -> None:
        """Something to know that was not checked."""
        self._indented("    ", text)

    def hide(self, *secrets: Secret) -> None:
        """From now on a line that holds one of these is not written."""
        self._secrets.extend(secrets)

    def line(self, text: str) -> None:
        """Write one line. Raises :class:`StepFailed` instead of telling a secret."""
        if any(secret.reveal() in text for secret in self._secrets):
            raise StepFailed("a line of this demo held a secret; it was not printed.")
        self._write(text)

    def _indented(self, mark: str, text: str) -> None:
        # Names stay whole: a person may want to copy them.
        whole = textwrap.TextWrapper(_WIDTH, f"    {mark}", " " * 8, break_on_hyphens=False, break_long_words=False)
        self.line(whole.fill(text))


def failed(why: str) -> NoReturn:
    """End the step: what had to happen did not."""
    raise StepFailed(why)


async def refusal(asking: Awaitable[object], reason: Reason, what: str) -> BrokerError:
    """The broker's refusal of ``asking``, for ``reason``. Raises :class:`StepFailed` if it did anything else."""
    try:
        await asking
    except BrokerError as error:
        if error.reason != reason:
            failed(f"{what} was refused for {error.reason} ({error.message}), which should be {reason}.")
        return error
    failed(f"{what} was not refused.")
