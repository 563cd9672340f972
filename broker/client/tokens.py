"""The JWT-SVID that goes with each call when a proxy stands between this program and the broker.

Belongs here: where the token comes from, and the metadata it goes in; our channels have TLS and nothing else. A
token is fetched for one audience, the broker's, and used again until half of its life is over (the Workload
API gives the same one until then, too). Does not belong here: py-spiffe (``workload_api.py``).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from broker.errors import Reason, Unauthenticated

MAX_TOKEN_BYTES = 8 * 1024


class TokenSource(Protocol):
    """One place a token comes from. Safe from any thread."""

    def token(self) -> str:
        """A token that is valid now. Blocks for a bounded time. Raises :class:`Unauthenticated` (JWT_SVID_MISSING)."""
        ...

    def close(self) -> None:
        """Let go of threads and connections."""
        ...


@dataclass(frozen=True, slots=True)
class TokenFile:
    """A file that somebody else keeps fresh (spiffe-helper, a CI job). Read for each call."""

    path: Path

    def token(self) -> str:
        """What the file says now, without white space around it."""
        try:
            with self.path.open("rb") as file:
                text = file.read(MAX_TOKEN_BYTES + 1).decode("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not ASCII"
            raise no_token(f"{self.path} cannot be read: {why}") from None
        if not text or len(text) > MAX_TOKEN_BYTES:
            raise no_token(f"{self.path} holds no token")
        return text

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


def no_token(why: str) -> Unauthenticated:
    """There is none to send."""
    return Unauthenticated(
        Reason.JWT_SVID_MISSING,
        f"There is no JWT-SVID to send through the proxy: {why}.",
        hint="Is the SPIFFE agent running, and this workload registered? Without a proxy, leave the audience out.",
    )
