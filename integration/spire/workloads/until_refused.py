"""An agent with a login in its hands, that asks ten times a second who it is, until it is refused.

Tells the login at once, and at the end when it was refused, and why.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import timedelta

from broker.client import connect
from broker.clock import SystemClock
from broker.errors import BrokerError
from broker.lease.credential import DatabaseLogin
from broker.scope.request import AccessRequest

_WITHIN_SECONDS, _BETWEEN_SECONDS = 120.0, 0.1


async def main() -> None:
    end, clock = time.monotonic() + _WITHIN_SECONDS, SystemClock()
    async with connect() as client:
        task = await client.start_task("read orders for as long as I may")
        login = await client.request(
            AccessRequest(
                request_id=client.new_id(), task_id=task.id, template="orders-readonly", account="shop",
                environment="production", resource="orders", ttl=timedelta(minutes=5),
            )
        )  # fmt: skip
        assert isinstance(login.credential, DatabaseLogin)
        print(login.credential.username, flush=True)
        answered = None
        while time.monotonic() < end:
            asked = clock.now()
            try:
                last = await client.whoami()
                answered = asked
            except BrokerError as error:
                assert client.connection.material is not None
                told = {
                    "reason": error.reason,
                    "told": str(error),
                    # When the last call that was answered was begun, and when the first that was not was over.
                    "answered": answered.timestamp() if answered else None,
                    "refused": clock.now().timestamp(),
                    "notAfter": client.connection.material.not_after.timestamp(),
                }
                print(json.dumps(told))
                return
            await asyncio.sleep(_BETWEEN_SECONDS)
    sys.exit(f"never refused; last: {last}")


asyncio.run(main())
