"""``--database``: the ledger that a command reads, beside a running broker or from a copy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from broker.cli.output import F

WHICH_LEDGER = (
    "The ledger: ledger.sqlite3 in brokerd's state directory, a copy of it, or a reference (env:, file:) to a DSN."
)
_REFERENCES = ("env:", "file:")


class LedgerType(click.ParamType[Any]):
    """A file, or where a reference points: a PostgreSQL server."""

    name = "ledger"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See click.ParamType.convert."""
        # Not at the top: an agent's install has no such driver.
        from broker.stores.offline import ServerReference

        if isinstance(value, str):
            return ServerReference(value) if value.startswith(_REFERENCES) else Path(value)
        return value


def database_option(*, required: bool = True, what: str = WHICH_LEDGER) -> Callable[[F], F]:
    """The option; the command gets ``database``, None where it was not required and not given."""
    return click.option("--database", type=LedgerType(), required=required, metavar="LEDGER", help=what)
