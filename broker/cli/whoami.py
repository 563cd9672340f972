"""``broker whoami``."""

from __future__ import annotations

import click

from broker.cli.connection import run
from broker.cli.output import format_option, print_record


@click.command()
@format_option("text", "json", "env")
def whoami(form: str) -> None:
    """Who the broker thinks you are: the SVID it validated, and how you are registered."""
    print_record(run(lambda client: client.whoami()), form, "BROKER")
