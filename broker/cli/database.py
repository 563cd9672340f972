"""``--database``: the ledger that a command reads, beside a running broker or from a copy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from broker.cli.output import F

_WHAT = "The ledger: ledger.sqlite3 in brokerd's state directory, or a copy of it."


def database_option(*, required: bool = True, what: str = _WHAT) -> Callable[[F], F]:
    """The option; the command gets ``database``, None where it was not required and not given."""
    return click.option(
        "--database",
        type=click.Path(path_type=Path, dir_okay=False),
        required=required,
        metavar="FILE",
        help=what,
    )
