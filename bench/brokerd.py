"""``python -m bench.brokerd --config FILE``: brokerd with the no-op connector in place of all others, and with a
stopwatch around the one call that says who is asking. What it read goes to the file in ``BENCH_IDENTITY`` at the end.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from grpc import aio

from bench.noop import build
from broker.api.door import Door
from broker.daemon.main import main


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


if __name__ == "__main__":
    TimedDoor.install()
    code = main(connectors=build)
    told = {"calls": TimedDoor.calls, "seconds": TimedDoor.nanoseconds / 1e9}
    Path(os.environ["BENCH_IDENTITY"]).write_text(json.dumps(told))
    sys.exit(code)
