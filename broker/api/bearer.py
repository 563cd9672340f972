"""The bearer token in a call's metadata, where the listener wants one and where it does not.

Belongs here: finding exactly one ``authorization: Bearer TOKEN`` (JWT-SVID, section 5.2; RFC 6750), and
refusing any on the agents' listener, so that a token is never a second way in there. What a token proves
is ``broker/identity/jwt_svid.py`` for agents, ``people.py`` for people.
"""

from __future__ import annotations

from collections.abc import Sequence

from broker.errors import Reason, Unauthenticated

Metadata = Sequence[tuple[str, str | bytes]]
_KEY = "authorization"
_SCHEME = "Bearer "


def bearer_token(metadata: Metadata, reason: Reason, hint: str) -> str:
    """The one token. Raises :class:`Unauthenticated` (``reason``) for none, several or another scheme."""
    found = _authorizations(metadata)
    if not found:
        why = "has no authorization metadata"
    elif len(found) > 1:
        # Two readers of the same call could each believe another one.
        why = f"has {len(found)} authorization entries; exactly one is read"
    elif not found[0].startswith(_SCHEME):
        why = "has authorization metadata other than a bearer token"
    else:
        return found[0].removeprefix(_SCHEME)
    raise Unauthenticated(reason, f"The call {why}.", hint=hint)


def refuse_token(metadata: Metadata) -> None:
    """Raises :class:`Unauthenticated` (JWT_SVID_UNEXPECTED) if there is any authorization metadata."""
    if _authorizations(metadata):
        raise Unauthenticated(
            Reason.JWT_SVID_UNEXPECTED,
            "The call has authorization metadata, which does not count on the agents' listener.",
            hint="Leave it out: here the connection's X.509-SVID says who calls. Tokens come through a proxy.",
        )


def _authorizations(metadata: Metadata) -> list[str]:
    # Text keys have text values (gRPC over HTTP/2, "Custom-Metadata"); bytes come only under keys in -bin.
    return [value for key, value in metadata if key.lower() == _KEY and isinstance(value, str)]
