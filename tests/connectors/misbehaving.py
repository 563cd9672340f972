"""Upstreams that misbehave in everything they are asked, in one vocabulary for every adapter.

A harness offers ``misbehaving``: for a :class:`Mishap`, a connector to the same upstream that meets it. An adapter that
speaks HTTP gets it from :func:`behind_proxy`, with its own form of an error; the fake plays it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import Enum, auto

from broker.ports.connectors import Connector
from tests.connectors.fake import FakeConnector, InventoryMishap, IssueMishap, RevokeMishap
from tests.connectors.mishap_proxy import Reply, Rule, lost, mishap_proxy
from tests.patience import PATIENCE

RETRY_AFTER = 7  # seconds, of BUSY


class Mishap(Enum):
    """What every answer is."""

    FORBIDDEN = auto()  # 403, in the upstream's own form: the broker's credential is refused
    NOT_FOUND = auto()  # a bare 404 of something in front of it: proves nothing
    BUSY = auto()  # 429 with Retry-After
    BROKEN = auto()  # 500
    GARBLED = auto()  # 200, and no answer in it
    CUT = auto()  # the connection ends before anything was done
    LOST = auto()  # it is done, and the answer is lost
    HANG = auto()  # it is done, and the answer never comes
    LATE = auto()  # the answer never comes, and it is done when nobody waits for it any more


Misbehaving = Callable[[Mishap], AbstractContextManager[Connector]]
# A connector to an upstream that says that it has ended something, and has not.
Lying = Callable[[], AbstractContextManager[Connector]]
# A connector to what answers at an address, that gives a call up after so many seconds.
MakeAt = Callable[[str, float], Connector]
# The upstream's own answer with this status.
Refusal = Callable[[int], Reply]


def vault_refusal(status: int) -> Reply:
    """As Vault and OpenBao say it."""
    return Reply(status, json.dumps({"errors": ["no"]}).encode())


_PAGE = b"<html>a proxy of somebody</html>"
_HTML = {"Content-Type": "text/html"}
# For HANG and LATE: the shorter, the sooner the test is over; what comes of it is the same.
_IMPATIENT = 0.3


def behind_proxy(target: str, make_at: MakeAt, refusal: Refusal, *, keeps_host: bool = False) -> Misbehaving:
    """For an adapter that speaks HTTP with ``target``; ``keeps_host``: with one that checks what is signed."""

    @contextmanager
    def misbehaving(mishap: Mishap) -> Iterator[Connector]:
        released = threading.Event()
        with mishap_proxy(target, keeps_host=keeps_host) as (proxy, address):
            proxy.rules.append(_rule(mishap, refusal, released))
            yield make_at(address, _IMPATIENT if mishap in (Mishap.HANG, Mishap.LATE) else PATIENCE)
            released.set()
            if mishap is Mishap.LATE and proxy.seen:
                assert proxy.answered.wait(PATIENCE), "what was to be done late was never done"

    return misbehaving


def _rule(mishap: Mishap, refusal: Refusal, released: threading.Event) -> Rule:
    match mishap:
        case Mishap.FORBIDDEN:
            return Rule("", instead=refusal(403))
        case Mishap.NOT_FOUND:
            return Rule("", instead=Reply(404, _PAGE, _HTML))
        case Mishap.BUSY:
            busy = refusal(429)
            return Rule("", instead=Reply(429, busy.body, {**busy.headers, "Retry-After": str(RETRY_AFTER)}))
        case Mishap.BROKEN:
            return Rule("", instead=refusal(500))
        case Mishap.GARBLED:
            return Rule("", instead=Reply(200, _PAGE, _HTML))
        case Mishap.CUT:
            return Rule("", instead=Reply(0))
        case Mishap.LOST:
            return Rule("", change=lost)
        case Mishap.HANG:
            return Rule("", hold=released)
        case Mishap.LATE:
            return Rule("", late=released)


def lying(target: str, make_at: MakeAt, *ends: Rule) -> Lying:
    """For an adapter that speaks HTTP; ``ends``: what its orders to end something are answered with, instead."""

    @contextmanager
    def lies() -> Iterator[Connector]:
        with mishap_proxy(target, keeps_host=True) as (proxy, address):
            proxy.rules.extend(ends)
            yield make_at(address, PATIENCE)
            assert any(rule.is_for(seen) for rule in ends for seen in proxy.seen), "nobody asked for an end"

    return lies


def lying_vault(target: str, make_at: MakeAt) -> Lying:
    """OpenBao takes every order to end something, and leaves it as it is."""
    orders = ("PUT /v1/sys/leases/revoke", "POST /v1/auth/token/revoke-accessor")
    return lying(target, make_at, *(Rule(order, instead=Reply(204)) for order in orders))


def playing(upstream: FakeConnector) -> Misbehaving:
    """The fake, as it is told to."""

    @contextmanager
    def misbehaving(mishap: Mishap) -> Iterator[Connector]:
        issue, revoke, inventory = _PLAYED[mishap]
        upstream.issue_mishaps.extend([issue] * 3)
        upstream.revoke_mishaps.extend([revoke] * 3)
        upstream.inventory_mishaps.extend([inventory] * 3)
        upstream.gives_up_after = _IMPATIENT
        yield upstream
        upstream.gives_up_after = None
        if mishap is Mishap.LATE:
            upstream.land()
        for queue in (upstream.issue_mishaps, upstream.revoke_mishaps, upstream.inventory_mishaps):
            queue.clear()

    return misbehaving


_PLAYED = {
    Mishap.FORBIDDEN: (IssueMishap.ROOT_REFUSED, RevokeMishap.FORBIDDEN, InventoryMishap.FORBIDDEN),
    Mishap.NOT_FOUND: (IssueMishap.LATE_CREATE, RevokeMishap.NOT_FOUND, InventoryMishap.BROKEN),
    Mishap.BUSY: (IssueMishap.BUSY, RevokeMishap.BUSY, InventoryMishap.BROKEN),
    Mishap.BROKEN: (IssueMishap.LATE_CREATE, RevokeMishap.BROKEN, InventoryMishap.BROKEN),
    Mishap.GARBLED: (IssueMishap.LOST_REPLY, RevokeMishap.BROKEN, InventoryMishap.BROKEN),
    Mishap.CUT: (IssueMishap.LATE_CREATE, RevokeMishap.BROKEN, InventoryMishap.BROKEN),
    Mishap.LOST: (IssueMishap.LOST_REPLY, RevokeMishap.DONE_BUT_LOST, InventoryMishap.BROKEN),
    Mishap.HANG: (IssueMishap.HANG, RevokeMishap.HANG, InventoryMishap.HANG),
    Mishap.LATE: (IssueMishap.LATE_CREATE, RevokeMishap.HANG, InventoryMishap.HANG),
}
