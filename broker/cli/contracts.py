"""A revocation contract in words for people: the same wherever one is shown."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from broker.approval.inert import inert
from broker.cli.output import span
from broker.client import RevocationContract
from broker.clock import SystemClock

_CLASSES = {
    "IMMEDIATE": "the upstream ends one credential when asked",
    "BY_POLICY": "a deny is attached to it upstream",
    "EXPIRY_ONLY": "only time ends it",
    "STATIC": "only rotation ends it",
}
_BINDINGS = {
    "NONE": "nothing: whoever knows it can use it",
    "NETWORK": "a network: elsewhere it does not work",
    "KEY": "a private key that never leaves its holder",
}


def lines(contract: RevocationContract) -> Iterator[str]:
    """One line for each thing that is promised; the four bounds among them."""
    yield from (f"{name:<14}  {told}" for name, told in _told(contract))


def _told(contract: RevocationContract) -> Iterator[tuple[str, str]]:
    yield "class", f"{contract.contract_class}: {_CLASSES.get(contract.contract_class, 'unknown to this client')}"
    yield "bound to", _bound_to(contract)
    yield "TTL", f"{bound(contract.ttl_floor)} to {bound(contract.ttl_ceiling)}"
    yield "past deadline", f"works for at most {bound(contract.bound_on_expiry)}"
    revoked = contract.bound_on_revoke
    yield "revoked", "works until it expires" if revoked is None else f"works for at most {bound(revoked)}"
    yield "broker dead", _dead(contract.bound_on_broker_dead, contract.if_broker_dead)
    yield "upstream dead", _dead(contract.bound_on_upstream_dead, contract.if_upstream_dead)
    if seen := "; ".join(_measured(contract, SystemClock().now())):
        yield "measured", f"{seen}{'. THE CONTRACT IS NOT KEPT' if contract.measured_broken else ''}"


def _bound_to(contract: RevocationContract) -> str:
    if places := " and ".join(" or ".join(map(inert, each.sources)) for each in contract.networks):
        return f"a network: it works from {places} alone"
    return _BINDINGS.get(contract.binding, contract.binding)


def _measured(contract: RevocationContract, now: datetime) -> Iterator[str]:
    """What canaries saw last."""
    for what, measured, at in (
        ("after revocation", contract.measured_on_revoke, contract.measured_on_revoke_time),
        ("after its deadline", contract.measured_on_expiry, contract.measured_on_expiry_time),
    ):
        if at is not None:
            yield f"{'still alive' if measured is None else precise(measured)} {what}, {ago(at, now)}"


def _dead(at_most: timedelta | None, words: str) -> str:
    told = "NOTHING BOUNDS IT" if at_most is None else f"works for at most {bound(at_most)} past its deadline"
    return f"{told}. {inert(words)}"


def bound(value: timedelta | None) -> str:
    """A bound as it can be typed again, a fraction of a second too."""
    if value is not None and value % timedelta(seconds=1):
        return f"{value.total_seconds():g}s"
    return span(value)


def precise(value: timedelta | None) -> str:
    """A measured time, with as much of it as people read: 40 ms, 1.25 s, -3.1 s."""
    if value is None:
        return ""
    seconds = value.total_seconds()
    return f"{seconds * 1000:.0f} ms" if abs(seconds) < 1 else f"{seconds:.3g} s"


def ago(at: datetime | None, now: datetime) -> str:
    """How long ago, in its largest unit."""
    if at is None:
        return ""
    seconds = max(round((now - at).total_seconds()), 0)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def revoked_within(contract: RevocationContract | None) -> str:
    """One word for a table: how fast a revocation works."""
    if contract is None:
        return ""
    return "-" if contract.bound_on_revoke is None else bound(contract.bound_on_revoke)
