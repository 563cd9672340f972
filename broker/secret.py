"""A value that will not print.

Everything that opens a door (passwords, session tokens, root credentials) travels inside the broker
as a :class:`Secret`. It cannot be formatted, logged, pickled or serialised by accident; the one way
to the value is :meth:`Secret.reveal`, which is easy to grep for.
"""

from __future__ import annotations

import hmac
from typing import NoReturn

_MASK = "Secret(redacted)"


class Secret:
    """A secret text. Equality is constant time; hashing is refused, so no dict keys by secret."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        if not isinstance(value, str) or not value:
            raise ValueError("a secret is a non-empty text")
        self._value = value

    def reveal(self) -> str:
        """The value itself. Callers hand it to an upstream or to the one response that delivers it."""
        return self._value

    def __repr__(self) -> str:
        return _MASK

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return _MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value.encode(), other._value.encode())

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled or copied")

    def __len__(self) -> int:
        raise TypeError("a Secret does not tell its length")
