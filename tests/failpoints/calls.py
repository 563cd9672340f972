"""The way to an upstream that speaks HTTP, with points before and after each call, by what is asked."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

from tests.connectors.mishap_proxy import MishapProxy, Reply, mishap_proxy
from tests.failpoints.points import Fault, Points
from tests.simulation.process import Process

# What is chosen anew in every run: ids of attempts, of leases, keys, hashes, times.
_CHANGES = re.compile(r"jb-[a-z0-9]{8}-[A-Za-z0-9]+|\d{15}|[0-9a-fA-F]{2}(?:[:-][0-9a-fA-F]{2})+|[A-Za-z0-9_-]{20,}")
_ATTEMPT = re.compile(rb"jb-[a-z0-9]{8}-[A-Za-z0-9]{10,40}")
_NO = Reply(500, json.dumps({"errors": ["no"], "error": {"code": 500, "status": "INTERNAL", "message": "no"}}).encode())


def named(method: str, path: str, body: bytes) -> str:
    """What is asked, without what is chosen anew; of an API that has one path for all, its action."""
    split = urlsplit(path)
    action = parse_qs(body.decode(errors="replace")).get("Action", [""])[0] if b"Action=" in body else ""
    return f"{method} {_CHANGES.sub('ID', split.path)}{' ' + action if action else ''}"


class PointedProxy(MishapProxy):
    """Of one process of the broker: when that is gone, nothing of it arrives any more.

    ``intended`` says whether the ledger has an attempt; ``time_passed`` what a server's own times are to be told as.
    """

    def __init__(
        self,
        target: str,
        points: Points,
        process: Process,
        intended: Callable[[str], bool],
        age: Callable[[Reply], Reply],
    ) -> None:
        super().__init__(target)
        self._points = points
        self._process = process
        self._intended = intended
        self._age = age
        self._passing = 0
        self._idle = threading.Condition()
        self.unintended: list[str] = []

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Reply | None:
        """See MishapProxy; None: the connection is cut."""
        if not self._process.alive:
            return None
        call = self._points.numbered(f"call {named(method, path, body)}")
        for attempt in _ATTEMPT.findall(body + path.encode()):
            if not self._intended(attempt.decode()):
                self.unintended.append(f"{call} of {attempt.decode()}")
        with self._idle:
            self._passing += 1
        try:
            return self._carry_out(call, method, path, headers, body)
        finally:
            with self._idle:
                self._passing -= 1
                self._idle.notify_all()

    def _carry_out(self, call: str, method: str, path: str, headers: dict[str, str], body: bytes) -> Reply | None:
        before = self._points.meet(f"{call} before")
        if before is Fault.CRASH:
            return None
        if before is Fault.ERROR:
            return _NO
        if before is Fault.HANG:
            self._points.stand()
        reply = super().answer(method, path, headers, body)
        after = self._points.meet(f"{call} after")
        if after is Fault.HANG:
            self._points.stand()
        if after in (Fault.CRASH, Fault.ERROR) or reply is None:
            return None
        return self._age(reply)

    def settled(self) -> None:
        """Wait until nothing is on its way to the upstream."""
        with self._idle:
            self._idle.wait_for(lambda: self._passing == 0, 30)


@contextmanager
def pointed_proxy(proxy: PointedProxy, *, keeps_host: bool) -> Iterator[str]:
    """Running; its address."""
    with mishap_proxy("", keeps_host=keeps_host, proxy=proxy) as (_, address):
        yield address


class Passing:
    """How much later it is for the broker than for servers that keep their own time."""

    def __init__(self) -> None:
        self._jumps: list[tuple[datetime, timedelta]] = []

    def now(self) -> datetime:
        """The broker's clock, to the millisecond as the port says."""
        present = datetime.now(UTC) + self.offset
        return present.replace(microsecond=present.microsecond // 1000 * 1000)

    @property
    def offset(self) -> timedelta:
        """Altogether."""
        return sum((by for _, by in self._jumps), timedelta())

    def pass_by(self, by: timedelta) -> None:
        """It is so much later."""
        self._jumps.append((datetime.now(UTC), by))

    def age(self, reply: Reply) -> Reply:
        """A lease that was there before time passed is older by what passed."""
        if b'"issue_time"' not in reply.body:
            return reply
        said = json.loads(reply.body)
        data = said["data"]
        issued = datetime.fromisoformat(data["issue_time"])
        passed = sum((by for at, by in self._jumps if at >= issued), timedelta())
        data["issue_time"] = (issued - passed).isoformat()
        return Reply(reply.status, json.dumps(said).encode(), reply.headers)
