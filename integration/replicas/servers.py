"""A PostgreSQL that keeps what it has answered, and a standby that has it, too, before it is answered."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg

from broker.dev.files import write_private
from broker.dev.postgres import PostgresFacts, PostgresServer
from broker.secret import Secret

# Whatever the development server leaves out for speed.
DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "wal_level": "replica"}
# When each transaction was committed, for whoever judges a run.
_TOLD = {"track_commit_timestamp": "on"}
_STANDBY = "standby"
_PATIENCE = 60.0


class Primary(PostgresServer):
    """A server of which an answered COMMIT survives."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, **DURABLE, **_TOLD, max_wal_senders="4", hot_standby="on", wal_sender_timeout="5s")

    def ask(self, statement: str) -> list[tuple[object, ...]]:
        """Rows of one statement, as the superuser."""
        with psycopg.connect(self.facts.conninfo(), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def wait_for_standby(self) -> None:
        """From now on a COMMIT is answered only when the standby has it on its disk."""
        self.ask(f"ALTER SYSTEM SET synchronous_standby_names = '{_STANDBY}'")
        self.ask("SELECT pg_reload_conf()")
        until = time.monotonic() + _PATIENCE
        while self.ask("SELECT sync_state FROM pg_stat_replication") != [("sync",)]:
            assert time.monotonic() < until, "the standby does not follow"
            time.sleep(0.05)

    def take_no_more_writes(self) -> None:
        """As whoever hands over to another server by hand does first; its sessions go on, and can read."""
        self.ask("ALTER SYSTEM SET default_transaction_read_only = on")
        self.ask("SELECT pg_reload_conf()")

    def kill(self) -> None:
        """SIGKILL to every process of it, as when its machine loses power."""
        processes = self._stop()
        for each in processes:
            _tell(each, signal.SIGKILL)
        psutil.wait_procs(processes[:1], timeout=_PATIENCE)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """SIGSTOP to every process of it: what is sent to it is acknowledged, and nothing is answered."""
        processes = self._stop()
        try:
            yield
        finally:
            for each in processes:
                _tell(each, signal.SIGCONT)

    def _stop(self) -> list[psutil.Process]:
        """The parent first: from then on it starts no more of them, so that the list is whole."""
        assert self.pid is not None
        postmaster = psutil.Process(self.pid)
        postmaster.send_signal(signal.SIGSTOP)
        children = postmaster.children(recursive=True)
        for each in children:
            _tell(each, signal.SIGSTOP)
        return [postmaster, *children]


def _tell(process: psutil.Process, number: signal.Signals) -> None:
    """One that had ended is a zombie until its parent runs, and then gone."""
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


class Standby(PostgresServer):
    """A copy of a running primary that follows it."""

    def __init__(self, directory: Path, primary: PostgresFacts) -> None:
        super().__init__(directory, **DURABLE, **_TOLD, hot_standby="on", max_wal_senders="4")
        self._primary = primary
        write_private(directory / "superuser.password", primary.password.reveal())

    def _initdb(self, binaries: Path, home: Path, data: Path, password: Secret) -> None:
        """By pg_basebackup, in place of a cluster of its own."""
        root = os.geteuid() == 0
        following = self._primary.conninfo() + f" application_name={_STANDBY}"
        done = subprocess.run(
            [binaries / "pg_basebackup", f"--pgdata={data}", f"--dbname={following}", "--write-recovery-conf",
             "--wal-method=stream", "--checkpoint=fast", "--no-sync"],
            cwd=home,
            env={"PATH": os.defpath, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=False,
            user=self._account.uid if root else None,
            group=self._account.gid if root else None,
            extra_groups=[] if root else None,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def promote(self) -> None:
        """From now on it is the primary. Returns when it takes writes."""
        with psycopg.connect(self.facts.conninfo(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
            assert connection.execute("SELECT pg_promote(true, 60)").fetchone() == (True,)
            connection.execute("SELECT pg_reload_conf()")
