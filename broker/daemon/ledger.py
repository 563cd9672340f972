"""Where the ledger is: in a file of the state directory, or on a PostgreSQL server; and whose time it goes by."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from broker.clock import KeptClock, SystemClock, running_seconds
from broker.config import Config
from broker.errors import InvalidInput, Reason
from broker.ports.clock import Clock
from broker.ports.keys import KeyRing
from broker.references import resolve
from broker.stores.ballast import Ballast
from broker.stores.ledger import LedgerStore
from broker.stores.postgres_clock import ServerClock
from broker.stores.sqlite import SqliteStore

log = structlog.get_logger("brokerd")

# More than that between the server's clock and this machine's is told: one of them is wrong.
_SKEW = timedelta(seconds=1)


def clock_of(config: Config) -> KeptClock:
    """The server's clock where several brokers share one; else this machine's. Either way it never goes back."""
    if config.ledger is None:
        return KeptClock()
    server = ServerClock(SystemClock(), running_seconds)
    return KeptClock(server.milliseconds, source=server)


async def refuse_another_life(store: LedgerStore, config: Config) -> None:
    """Raises InvalidInput (CONFIG_INVALID) where the ledger has never recorded anything and its export has.

    It was removed with all that lay beside it, or the DSN names another database: what the old one knows is alive would
    be nobody's. A witness that can be asked tells the same and begins a recovery, which is more.
    """
    export, checkpoints = config.audit.export_file, config.audit.checkpoints
    if checkpoints is not None and any(each.syslog is None for each in checkpoints.witnesses.values()):
        return
    if export is None or await store.trail_end(config.tenant) is not None:
        return
    try:
        records = await asyncio.to_thread(lambda: export.stat().st_size)
    except OSError:  # nothing there, or nothing that can be looked at: then nothing says that there was a ledger
        return
    if records:
        where = str(config.state.directory / "ledger.sqlite3") if config.ledger is None else config.ledger.dsn
        raise InvalidInput(
            Reason.CONFIG_INVALID,
            f"the ledger ({where}) is empty, and {export} has the audit trail of one.",
            hint="It is the only list of what may be alive: put it back, or restore a backup. Where a new one is meant,"
            f" move {export.name} away, and keep it.",
            metadata={"path": str(export)},
        )


async def open_ledger(
    config: Config, keys: KeyRing, writer: str, clock: Clock, ballast: Ballast | None = None
) -> LedgerStore:
    """The store, open. Raises what the two stores raise, InvalidInput (CONFIG_INVALID) for a DSN that will not do."""
    keeps_texts = config.audit.keep_texts
    if config.ledger is None:
        path = config.state.directory / "ledger.sqlite3"
        return await SqliteStore.open(path, keys, writer=writer, keeps_texts=keeps_texts, ballast=ballast)
    # With psycopg, which a broker with a ledger of its own does not need.
    from broker.stores.postgres import PostgresStore
    from broker.stores.postgres_connection import ServerAddress

    address = ServerAddress(resolve(config.ledger.dsn), config.ledger.allow_unverified)
    source = clock.source if isinstance(clock, KeptClock) else clock
    follows = source if isinstance(source, ServerClock) else ServerClock(clock)
    store = await PostgresStore.open(address, keys, writer, follows, keeps_texts=keeps_texts)
    if abs(follows.skew) > _SKEW:
        seconds = round(follows.skew.total_seconds(), 1)
        log.warning("the ledger's server has another time than this machine; its time counts", ahead_seconds=seconds)
    return store
