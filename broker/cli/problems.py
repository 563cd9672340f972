"""How commands that read operators' files tell what is wrong in them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import click

from broker.cli.settings import EXIT_WRONG
from broker.files import Problems

P = ParamSpec("P")


def problems_told(command: Callable[P, None]) -> Callable[P, None]:
    """What is wrong in files goes to standard error, a line each, and the command exits 1."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except Problems as found:
            for problem in found.problems:
                click.echo(str(problem), err=True)
            raise SystemExit(EXIT_WRONG) from None

    return run
