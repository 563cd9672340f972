"""A vote whose answer was lost, sent again: the same word of the same person, and no second one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from broker.errors import Conflict, Reason


class Given(Protocol):
    """A vote that was recorded."""

    @property
    def issuer(self) -> str:
        """Whose."""
        ...

    @property
    def subject(self) -> str:
        """Whose."""
        ...

    @property
    def yes(self) -> bool:
        """Which."""
        ...

    @property
    def request_id(self) -> str:
        """By which request of its giver; empty where that was not kept."""
        ...


def repeats(issuer: str, subject: str, request_id: str, yes: bool, votes: Iterable[Given], about: str) -> bool:
    """Whether this person's vote by this request is among ``votes`` on the access request ``about``.

    Raises :class:`Conflict` (REQUEST_ID_REUSED) where the request was one for the other answer.
    """
    for vote in votes:
        if request_id and (vote.issuer, vote.subject, vote.request_id) == (issuer, subject, request_id):
            if vote.yes is yes:
                return True
            raise Conflict(
                Reason.REQUEST_ID_REUSED,
                f"request id {request_id!r} already is a {'yes' if vote.yes else 'no'} to access request {about}.",
                hint="Use a fresh request id for another answer.",
                metadata={"requestId": request_id, "accessRequestId": about},
            )
    return False
