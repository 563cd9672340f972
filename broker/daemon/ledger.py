"""Where the ledger is: in a file of the state directory, or on a PostgreSQL server; and whose time it goes by."""

from __future__ import annotations

from broker.clock import KeptClock, SystemClock
from broker.config import Config
from broker.ports import Clock, KeyRing
from broker.references import resolve
from broker.stores.ledger import LedgerStore
from broker.stores.postgres import PostgresStore
from broker.stores.postgres_clock import ServerClock
from broker.stores.postgres_connection import ServerAddress
from broker.stores.sqlite import SqliteStore


def clock_of(config: Config) -> Clock:
    """The server's clock where several brokers share one; else this machine's."""
    return KeptClock() if config.ledger is None else ServerClock(SystemClock())


async def open_ledger(config: Config, keys: KeyRing, writer: str, clock: Clock) -> LedgerStore:
    """The store, open. Raises what the two stores raise, InvalidInput (CONFIG_INVALID) for a DSN that will not do."""
    keeps_texts = config.audit.keep_texts
    if config.ledger is None:
        path = config.state.directory / "ledger.sqlite3"
        return await SqliteStore.open(path, keys, writer=writer, keeps_texts=keeps_texts)
    address = ServerAddress(resolve(config.ledger.dsn), config.ledger.allow_unverified)
    follows = clock if isinstance(clock, ServerClock) else ServerClock(clock)
    return await PostgresStore.open(address, keys, writer, follows, keeps_texts=keeps_texts)
