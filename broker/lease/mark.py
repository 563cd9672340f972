"""Whose credential is it? The mark that the id of every attempt carries upstream.

An attempt's id travels to the upstream and stays there: in the name of a session, a login, a token. Two brokers, or two
tenants, may share one upstream, and each must leave the other's alone. So the id names the ledger that knows of it:
``jb-MARK-NAME``. The mark is chosen once for each tenant of a ledger and kept in it, so that a ledger restored from a
backup knows its own again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Attempt ids travel far: STS session names (64), PostgreSQL logins (63 with prefix and suffix).
PREFIX = "jb-"
LENGTH = 8
_MARK = re.compile(rf"[a-z0-9]{{{LENGTH}}}\Z", re.ASCII)
_ATTEMPT = re.compile(rf"{PREFIX}([a-z0-9]{{{LENGTH}}})-[A-Za-z0-9]{{1,40}}\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Mark:
    """One tenant of one ledger, as upstreams see it."""

    text: str

    def __post_init__(self) -> None:
        if not _MARK.match(self.text):
            raise ValueError(f"a mark is {LENGTH} lower-case letters and digits, not {self.text!a}")

    def attempt(self, name: str) -> str:
        """The id of the attempt ``name`` (letters and digits, at most 40)."""
        return f"{PREFIX}{self.text}-{name}"

    def owns(self, attempt_id: str) -> bool:
        """Whether an attempt of this id is ours. One that names no ledger, or is no id of ours at all, is not."""
        found = _ATTEMPT.match(attempt_id)
        return found is not None and found[1] == self.text
