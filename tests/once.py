"""What many tests of a run need alike is made once: an empty ledger, the same deploy set, the models of AWS's services.

Each took a tenth of the run's time, over and over, and came out the same. Only tests in the pytest process gain by it:
what they start as a process makes its own, as it does for users. What no test has imported is left alone.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from broker.deployfiles.listing import Listing
    from broker.deployfiles.signers import Signers
    from broker.ports.deploys import DeploySet


def make_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until ``monkeypatch`` is undone."""
    if "broker.stores.sqlite" in sys.modules:
        monkeypatch.setattr("broker.stores.sqlite.migrate", migrated)
    if "broker.deployfiles.source" in sys.modules:
        monkeypatch.setattr("broker.deployfiles.source.build", Sets().build)
    if "botocore.session" in sys.modules:
        # It reads megabytes of JSON for every session's first client.
        monkeypatch.setattr("botocore.session.create_loader", cache(sys.modules["botocore.session"].create_loader))


# ------------------------------------------------------------------ ledgers


def migrated(connection: sqlite3.Connection) -> int:
    """A new file becomes a copy of one that went through every step; another one goes through those that it lacks."""
    from broker.stores import migrate

    if not _is_new(connection):
        return migrate.migrate(connection)
    _new_ledger(migrate.migrations).backup(connection)
    return migrate.schema(connection).version


def _is_new(connection: sqlite3.Connection) -> bool:
    try:
        return not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    except sqlite3.Error:
        return False  # damaged: that is told by who migrates


@cache
def _new_ledger(steps: Callable[[], object]) -> sqlite3.Connection:
    """One for each release: a test may play the next one, which has more ``steps``."""
    from broker.stores.migrate import migrate

    made = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    migrate(made)
    return made


# ------------------------------------------------------------------ deploy sets


class Sets:
    """Sets that were taken in before: of the same bytes, for the same trust domain, comes the same set.

    One that is not good is judged each time: its problems name the directory. So is one that is signed, or has to be.
    """

    def __init__(self) -> None:
        self._known: dict[object, DeploySet] = {}

    def build(self, files: Listing, trust_domain: str = "", signers: Signers | None = None, **how: Any) -> DeploySet:
        from broker.deployfiles.load import build

        if signers is not None or files.problems or files.envelope is not None:
            return build(files, trust_domain, signers, **how)
        key = (files.digest(), trust_domain, *sorted(how.items()))
        if key not in self._known:
            self._known[key] = build(files, trust_domain, None, **how)
        return self._known[key]
