"""SPIFFE IDs, strictly: canonical or refused, never normalised and accepted.

Source: SPIFFE-ID.md of the SPIFFE standards (section 2). Comparison is byte for byte, so any
spelling that a lenient parser would fold (case, ``%61``, ``..``, a trailing slash) must not parse.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from broker.errors import Reason, Unauthenticated

MAX_BYTES = 2048
MAX_TRUST_DOMAIN = 255
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}\Z", re.ASCII)
_SEGMENT = re.compile(r"[a-zA-Z0-9._-]+\Z", re.ASCII)
_SCHEME = "spiffe://"


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """A workload's id: trust domain and non-empty path (with its leading slash)."""

    trust_domain: str
    path: str

    def __str__(self) -> str:
        return f"{_SCHEME}{self.trust_domain}{self.path}"

    @classmethod
    def parse(cls, text: str) -> SpiffeId:
        """The id written as ``text``. Raises :class:`Unauthenticated` (SVID_ID_NOT_CANONICAL)."""
        if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
            raise _refused(text[:64] + "...", f"is longer than {MAX_BYTES} bytes")
        if not text.startswith(_SCHEME):
            raise _refused(text, f"does not start with {_SCHEME}")
        domain, slash, rest = text[len(_SCHEME) :].partition("/")
        if not _TRUST_DOMAIN.match(domain):
            raise _refused(text, "has a trust domain with characters other than a-z 0-9 . _ -")
        if not slash or not rest:
            raise _refused(text, "names a trust domain, not a workload: the path is empty")
        for segment in rest.split("/"):
            if segment in (".", "..") or not _SEGMENT.match(segment):
                raise _refused(text, "has an empty, dotted or non-canonical path segment")
        return cls(domain, f"/{rest}")


def is_trust_domain(text: str) -> bool:
    """Whether ``text`` is the name of a trust domain (without scheme)."""
    return bool(_TRUST_DOMAIN.match(text))


def _refused(text: str, why: str) -> Unauthenticated:
    shown = ascii(text)[:200]
    return Unauthenticated(
        Reason.SVID_ID_NOT_CANONICAL,
        f"{shown} is not a SPIFFE ID: it {why}.",
        hint="A workload id reads spiffe://trust-domain/path, lower-case trust domain, no trailing slash.",
        metadata={"spiffeId": shown},
    )
