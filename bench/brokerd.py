"""brokerd with the no-op connector in place of all others, and with a
stopwatch around the one call that says who is asking, and around everything that makes the audit trail: encoding,
chaining and writing its records, and exporting, signing and witnessing them. What they read goes to the file in
``BENCH_IDENTITY`` at the end.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from grpc import aio

from bench.noop import build
from broker.api.door import Door
from broker.audit.event import AuditEvent, EventType
from broker.daemon.main import main
from broker.stores import reads
from broker.stores.audit_file import AuditFile
from broker.stores.trail import Trail
from broker.witnesses.file import FileWitness
from broker.witnesses.signing import CheckpointKeys


class TimedDoor:
    """Adds up the processor time of :meth:`broker.api.door.Door.identify` on the event loop's thread."""

    calls = 0
    nanoseconds = 0

    @classmethod
    def install(cls) -> None:
        """Into the class, before the daemon makes its doors."""
        timed = Door.identify

        def identify(self: Door[Any, Any], context: aio.ServicerContext[Any, Any]) -> Any:
            began = time.thread_time_ns()
            try:
                return timed(self, context)
            finally:
                cls.nanoseconds += time.thread_time_ns() - began
                cls.calls += 1

        Door.identify = identify  # type: ignore[method-assign]


class TimedAudit:
    """Adds up the processor time of the audit trail, on whichever thread it is spent."""

    _lock = threading.Lock()
    nanoseconds = 0
    grants = 0

    @classmethod
    def install(cls) -> None:
        """Into the classes and modules, before the daemon makes anything of them."""
        for owner, name in (
            (Trail, "append"),
            (Trail, "flush"),
            (AuditFile, "_append"),
            (reads, "audit_since"),
            (CheckpointKeys, "sign"),
            (FileWitness, "_append"),
        ):
            setattr(owner, name, cls._timed(getattr(owner, name)))
        append = Trail.append

        def counted(self: Trail, event: AuditEvent, at_ms: int) -> int:
            cls.grants += event.type is EventType.LEASE_ISSUED
            return append(self, event, at_ms)

        Trail.append = counted  # type: ignore[method-assign]

    @classmethod
    def _timed(cls, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            began = time.thread_time_ns()
            try:
                return call(*arguments)
            finally:
                spent = time.thread_time_ns() - began
                with cls._lock:
                    cls.nanoseconds += spent

        return timed


def run() -> None:
    """Until told to stop."""
    TimedDoor.install()
    TimedAudit.install()
    code = main(connectors=build)
    told = {
        "calls": TimedDoor.calls,
        "seconds": TimedDoor.nanoseconds / 1e9,
        "grants": TimedAudit.grants,
        "audit_seconds": TimedAudit.nanoseconds / 1e9,
    }
    Path(os.environ["BENCH_IDENTITY"]).write_text(json.dumps(told))
    sys.exit(code)
