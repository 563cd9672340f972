"""The token that goes with a call: a JWT-SVID through a proxy; at the people's door, what says who calls.

Belongs here: where a token comes from, and the metadata it goes in; our channels have TLS and nothing else. A JWT-SVID
is fetched for one audience, the broker's, and used again until half of its life is over (the Workload API gives the
same one until then, too). Does not belong here: py-spiffe (``workload_api.py``), people's logins (``login/``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from broker.errors import BrokerError, Reason, Unauthenticated
from broker.secret import Secret

MAX_TOKEN_BYTES = 8 * 1024


class TokenSource(Protocol):
    """One place a token comes from. Safe from any thread."""

    def token(self) -> str:
        """A token that is valid now. Blocks for a bounded time.

        Raises :class:`Unauthenticated` (JWT_SVID_MISSING; of people: LOGIN_REQUIRED), or why it could not be renewed.
        """
        ...

    def close(self) -> None:
        """Let go of threads and connections."""
        ...


def no_admin_token(why: str) -> Unauthenticated:
    """There is none to send at the people's door."""
    return Unauthenticated(
        Reason.ID_TOKEN_MISSING,
        f"There is no token to send to the people's door: {why}.",
        hint="Whoever keeps BROKER_ADMIN_TOKEN_FILE fresh has not done so; people leave it out, and run: broker login",
    )


def no_token(why: str) -> Unauthenticated:
    """There is none to send."""
    return Unauthenticated(
        Reason.JWT_SVID_MISSING,
        f"There is no JWT-SVID to send through the proxy: {why}.",
        hint="Is the SPIFFE agent running, and this workload registered? Without a proxy, leave the audience out.",
    )


@dataclass(frozen=True, slots=True)
class TokenFile:
    """A file that somebody else keeps fresh (spiffe-helper, a CI job). Read for each call."""

    path: Path
    missing: Callable[[str], BrokerError] = no_token
    at_most: int = MAX_TOKEN_BYTES

    def token(self) -> str:
        """What the file says now, without white space around it."""
        try:
            with self.path.open("rb") as file:
                text = file.read(self.at_most + 1).decode("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not ASCII"
            raise self.missing(f"{self.path} cannot be read: {why}") from None
        if not text or len(text) > self.at_most:
            raise self.missing(f"{self.path} holds no token")
        return text

    def close(self) -> None:
        """Nothing is held open."""


@dataclass(frozen=True, slots=True)
class HeldToken:
    """A token that is at hand, for as long as it is good."""

    held: Secret

    def token(self) -> str:
        """It."""
        return self.held.reveal()

    def close(self) -> None:
        """Nothing is held open."""


async def bearer(source: TokenSource | None) -> tuple[tuple[str, str], ...]:
    """The metadata of one call: ``authorization: Bearer TOKEN``, or nothing without a source.

    Not gRPC's call credentials: those are a callback, for which a thread of gRPC's takes the interpreter's lock, and
    whoever closes the channel may hold that lock while waiting for the thread. Raises :class:`Unauthenticated`
    (JWT_SVID_MISSING).
    """
    if source is None:
        return ()
    return (("authorization", f"Bearer {await asyncio.to_thread(source.token)}"),)
