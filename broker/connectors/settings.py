"""What the operator wrote of a connector, read for whoever builds it.

It has been checked by ``broker/deployfiles/kinds.py``. Addresses may be ``env:NAME`` and are resolved once, when they
are read; secrets stay references and are resolved at every use, so that rotation works.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial

from pydantic import TypeAdapter

from broker.connectors.lending import Lending
from broker.connectors.own_identity import OwnIdentity
from broker.errors import InvalidInput, Reason
from broker.scope.canonical import JsonValue
from broker.secret import Secret

_SPAN = TypeAdapter(timedelta)

# Resolves ``file:PATH`` or ``env:NAME``. Raises BrokerError; called from worker threads too.
Resolve = Callable[[str], Secret]


class Settings:
    """One object of them; says what is wrong by connector and name."""

    def __init__(
        self,
        connector: str,
        settings: Mapping[str, JsonValue],
        resolve: Resolve,
        own: OwnIdentity,
        lending: Lending,
    ) -> None:
        self.connector = connector
        self.own = own
        self.lending = lending
        self._settings = settings
        self._resolve = resolve

    def text(self, name: str, default: str | None = None) -> str:
        """A text, or the value of ``env:NAME``."""
        value = self.maybe_text(name)
        if value is None:
            value = default
        if value is None:
            raise self._wrong(name)
        return value

    def maybe_text(self, name: str) -> str | None:
        """The same, or None if it is not there."""
        value = self._settings.get(name)
        if value is None:
            return None
        if not isinstance(value, str) or not value:
            raise self._wrong(name)
        return self._resolve(value).reveal() if value.startswith("env:") else value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts, each perhaps the value of ``env:NAME``; empty if it is not there."""
        value = self._settings.get(name)
        if value is None:
            return ()
        if not isinstance(value, list | tuple) or not all(isinstance(each, str) and each for each in value):
            raise self._wrong(name)
        texts = [str(each) for each in value]
        return tuple(self._resolve(each).reveal() if each.startswith("env:") else each for each in texts)

    def port(self, name: str) -> int:
        """A TCP port, or the value of ``env:NAME``."""
        value = self._settings.get(name)
        if isinstance(value, str):
            text = self.text(name)
            value = int(text) if text.isascii() and text.isdigit() else None
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65535:
            raise self._wrong(name)
        return value

    def secret(self, name: str) -> Callable[[], Secret]:
        """What a reference refers to, whenever it is asked."""
        value = self._settings.get(name)
        if not isinstance(value, str) or not value.startswith(("file:", "env:")):
            raise self._wrong(name)
        return partial(self._resolve, value)

    def maybe_span(self, name: str) -> timedelta | None:
        """A length of time, as the deploy files' own writer dumps it (ISO 8601), or None if it is not there."""
        value = self._settings.get(name)
        if value is None:
            return None
        try:
            return _SPAN.validate_python(value)
        except ValueError:
            raise self._wrong(name) from None

    def inner(self, name: str) -> Settings:
        """An object inside this one."""
        value = self._settings.get(name)
        if not isinstance(value, Mapping):
            raise self._wrong(name)
        return Settings(self.connector, value, self._resolve, self.own, self.lending)

    def number(self, name: str) -> int:
        """A positive whole number."""
        value = self._settings.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self._wrong(name)
        return value

    def names(self) -> tuple[str, ...]:
        """The names of what is in it."""
        return tuple(self._settings)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A truth value."""
        value = self._settings.get(name, default)
        if not isinstance(value, bool):
            raise self._wrong(name)
        return value

    def duration(self, name: str, default: timedelta) -> timedelta:
        """A span, or ``default`` if it is not there."""
        span = self.maybe_span(name)
        return default if span is None else span

    def has(self, name: str) -> bool:
        """Whether it is there."""
        return self._settings.get(name) is not None

    def _wrong(self, name: str) -> InvalidInput:
        # The value is not told: somebody may have written a secret there.
        return InvalidInput(
            Reason.CONFIG_INVALID,
            f"connector {self.connector}: {name} is missing or not what it must be.",
            hint="`broker check` tells file and line.",
            metadata={"connector": self.connector, "field": name},
        )
