"""Response wrapping: the server keeps a credential for one reader, and the agent is told only how to fetch it, once.

The credential is made and read as always, because a wrapped *read* would hide the lease that ends it; only what is
delivered is wrapped, with the broker's own token. Whoever passes the answer on has a token that works once: if somebody
used it on the way, the agent's own try fails, and that shows.

The wrapping token is no child of any other, so nothing ends it but its time, its use, and its accessor, which is noted.
One whose answer was lost is known to nobody; what is inside ends with its lease either way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime, timedelta

from broker.connectors.vault_calls import VaultCalls, WrappingToken
from broker.connectors.vault_upstream import Upstream
from broker.lease.credential import KINDS, Credential, WrappedSecret
from broker.ports.connectors import Handle
from broker.scope.canonical import JsonValue
from broker.secret import Secret

_NOTED = "wrapping"  # the member of a handle that holds the accessor


def seconds_of(wrap: timedelta, now: datetime, ends: datetime) -> int:
    """For how long to keep it: as asked, but not beyond the credential's end; in whole seconds, at least one."""
    return max(1, min(wrap, ends - now) // timedelta(seconds=1))


def wrap(calls: VaultCalls, credential: Credential, seconds: int) -> WrappingToken:
    """Put ``credential`` there; blocks. Raises VaultFailure."""
    return calls.wrap(_clear(credential), seconds)


def wrapped(token: WrappingToken, inside: Credential, upstream: Upstream, begun: datetime) -> WrappedSecret:
    """What the agent is told. ``begun``: before the server was asked, so that the end is no later than it says."""
    return WrappedSecret(
        wrapping_token=token.token,
        wrapping_accessor=token.accessor,
        expires_at=begun + timedelta(seconds=token.ttl),
        address=upstream.address,
        namespace=upstream.namespace,
        kind=KINDS[type(inside)],
    )


def noted(handle: Handle, token: WrappingToken) -> Handle:
    """``handle`` with what ends the token."""
    return {**handle, _NOTED: token.accessor}


def is_wrapped(handle: Handle) -> bool:
    """Whether there is a wrapping token to end."""
    return _NOTED in handle


def end_wrapping(calls: VaultCalls, handle: Handle) -> None:
    """End the wrapping token, if there is one; blocks. One that was used, or is over, is ended. Raises VaultFailure."""
    if _NOTED in handle:
        calls.revoke_accessor(str(handle[_NOTED]))


def _clear(credential: Credential) -> dict[str, JsonValue]:
    return {each.name: _revealed(getattr(credential, each.name)) for each in fields(credential)}


def _revealed(value: object) -> JsonValue:
    if isinstance(value, Mapping):
        return {name: _revealed(each) for name, each in value.items()}
    return value.reveal() if isinstance(value, Secret) else value  # type: ignore[return-value]
