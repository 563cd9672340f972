"""An agent's task, with the SDK: a login is asked for, used, and gone at the end.

``login.py [clear]``: with ``clear`` it is not sealed, whatever is in between. Tells what PostgreSQL saw, or
the reason of the refusal.
"""

from __future__ import annotations

import asyncio
import json
import sys

import psycopg

from broker.client import connect
from broker.errors import BrokerError
from broker.lease.credential import DatabaseLogin


async def main(seal: bool | None) -> None:
    async with connect(seal=seal) as client:
        who = await client.whoami()
        async with client.task("compare orders with payments") as task:
            login = await task.request(
                "orders-readonly", account="shop", environment="production", resource="orders", ttl="5m"
            )
            async with await psycopg.AsyncConnection.connect(login.conninfo()) as database:
                answer = await database.execute("SELECT session_user, count(*) FROM orders")
                row = await answer.fetchone()
        assert row is not None and isinstance(login.credential, DatabaseLogin)
        told = {
            "spiffeId": who.spiffe_id,
            "login": row[0],
            "orders": row[1],
            "password": login.credential.password.reveal(),
            "leases": [lease.state for lease in await client.leases(task_id=task.id)],
        }
    print(json.dumps(told))


try:
    asyncio.run(main(False if "clear" in sys.argv[1:] else None))
except BrokerError as refusal:
    print(json.dumps({"reason": refusal.reason}))
