"""The whole stack with a stand-in for brokerd; as a program (one argument: its state), until a signal ends it.

It imports no more than the stack needs: tests start it again and again.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from broker.clock import SystemClock
from broker.dev.stack import DevFacts, DevStack
from broker.identity.spiffe_id import SpiffeId

REPORTER = SpiffeId.parse("spiffe://dev.broker.internal/agent/reporter")
STAND_IN = (sys.executable, str(Path(__file__).with_name("stand_in_brokerd.py")))
READY = "ready\n"


def make_stack(state: Path, brokerd: tuple[str, ...] = STAND_IN) -> DevStack:
    return DevStack(
        state, state, agents=[REPORTER], clock=SystemClock(), render_config=_config_of, brokerd_command=brokerd
    )


def _config_of(facts: DevFacts) -> str:
    return json.dumps({"ops_port": facts.ops_port, "notes": str(facts.state / "notes.json")})


def _tell(facts: DevFacts) -> None:
    sys.stdout.write(READY)
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(make_stack(Path(sys.argv[1])).run_until_signal(_tell))
