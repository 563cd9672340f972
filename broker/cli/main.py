"""The ``broker`` command: its table of commands, its global options, and how it fails.

Belongs here: what is the same for every command. Commands are imported when they are used, so that the
base install is enough for an agent's commands, and an operator's says what to install.

Exit codes: 0 done; 1 something is wrong (a check, a doctor, a bug); 2 usage; 3 the broker refused;
4 the broker, or something it needs, could not be reached. ``broker exec`` exits as its command does.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import click

from broker.cli.settings import EXIT_REFUSED, EXIT_UNAVAILABLE, EXIT_USAGE, EXIT_WRONG, Settings
from broker.errors import BrokerError, Defect, InvalidInput, NotReady, Reason, Tampered, UpstreamFailed


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command is, what `broker --help` says of it, and the extra it needs."""

    path: str  # module:attribute
    summary: str
    extra: str = ""


AGENTS: Mapping[str, Entry] = {
    "whoami": Entry("broker.cli.whoami:whoami", "Who the broker thinks you are."),
    "templates": Entry("broker.cli.templates:templates", "What can be asked for, and how."),
    "task": Entry("broker.cli.task:task", "Start, look at, hold and complete tasks."),
    "request": Entry("broker.cli.request:request", "Ask for a credential, into a file or a descriptor."),
    "requests": Entry("broker.cli.requests:requests", "What you asked for that people must agree to first."),
    "exec": Entry("broker.cli.exec:execute", "Run a command with a credential, and end that with it."),
    "serve-credentials": Entry(
        "broker.cli.serve_credentials:serve_credentials", "Serve a credential to AWS SDKs on loopback."
    ),
    "leases": Entry("broker.cli.leases:leases", "List and follow your leases."),
    "revoke": Entry("broker.cli.leases:revoke", "End a lease now."),
    "plan": Entry("broker.cli.plan:plan", "Register, look at, confirm and reject plans."),
    "delegate": Entry("broker.cli.delegate:delegate", "Hand on a part of a lease to another agent."),
    "delegations": Entry("broker.cli.delegate:delegations", "List what was handed on, and take it back."),
    "doctor": Entry("broker.cli.doctor:doctor", "Find out, step by step, why it does not work."),
}
OPERATORS: Mapping[str, Entry] = {
    "check": Entry("broker.cli.check:check", "Check deploy files before they are used.", "daemon"),
    "policy": Entry("broker.cli.policy:policy", "Check, test and try policies before they are in force.", "daemon"),
    "login": Entry("broker.cli.login:login", "Log in, as a person, with your organisation's account."),
    "logout": Entry("broker.cli.login:logout", "Forget the login that is kept on this machine."),
    "suspend": Entry("broker.cli.suspensions:suspend", "Stop an agent, a template, ... or everything, now."),
    "resume": Entry("broker.cli.suspensions:resume", "Lift a suspension."),
    "recovery": Entry("broker.cli.recovery:recovery", "The ledger was found behind a witness: look, and release."),
    "suspensions": Entry("broker.cli.suspensions:suspensions", "What is suspended."),
    "admin": Entry("broker.cli.admin_group:admin", "Everybody's leases and tasks, the agents, a reload."),
    "connectors": Entry("broker.cli.connectors:connectors", "What connectors promise; whether upstreams are sound."),
    "approvals": Entry("broker.cli.approvals:approvals", "Look at, approve and deny what agents ask for."),
    "break-glass": Entry("broker.cli.break_glass:break_glass", "A credential now, reviewed afterwards."),
    "operator": Entry("broker.cli.operator:operator", "Who you are at the people's door."),
    "deploy": Entry("broker.cli.deploy:deploy", "Sign deploy sets, and verify signatures.", "daemon"),
    "reload": Entry("broker.cli.reload:reload", "Have brokerd take in its deploy files.", "daemon"),
    "audit": Entry("broker.cli.audit:audit", "Verify and show the audit trail.", "daemon"),
    "access": Entry("broker.cli.access:access", "What agents could get and what they used; sign it off.", "daemon"),
    "verify": Entry("broker.cli.ledger:verify", "Check the ledger's invariants, beside a running broker.", "daemon"),
    "migrate": Entry("broker.cli.ledger:migrate", "Bring a ledger to this release's schema.", "daemon"),
    "ledger": Entry("broker.cli.ledger:ledger", "Move a ledger from a file to a PostgreSQL server.", "daemon"),
    "backup": Entry("broker.cli.ledger:backup", "Copy the ledger of a running broker.", "daemon"),
    "dev": Entry("broker.cli.dev:dev", "Run everything on this machine, for development.", "dev"),
    "demo": Entry("broker.cli.demo:demo", "See the main story, each step checked.", "dev"),
}
COMMANDS = {**AGENTS, **OPERATORS}


class Failed(click.ClickException):
    """A :class:`BrokerError`, told to a person."""

    def __init__(self, error: BrokerError) -> None:
        super().__init__(f"{error.reason}: {error.message}")
        self.hint = error.hint
        self.exit_code = exit_code(error)  # type: ignore[misc]  # click reads it here

    def show(self, file: IO[Any] | None = None) -> None:
        """``error: REASON: message``, and what to do on the next line."""
        click.echo(f"error: {self.message}", err=True, file=file)
        if self.hint:
            click.echo(f"hint: {self.hint}", err=True, file=file)


def exit_code(error: BrokerError) -> int:
    """The table of the module's docstring."""
    if isinstance(error, NotReady | UpstreamFailed):
        return EXIT_UNAVAILABLE
    if isinstance(error, InvalidInput) and error.reason is Reason.CONFIG_INVALID:
        return EXIT_USAGE
    if isinstance(error, Tampered | Defect):
        return EXIT_WRONG
    return EXIT_REFUSED


class Commands(click.Group):
    """A group that imports a command when it is used, and tells what is missing if it cannot."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the tables."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.path.partition(":")
        with _extras_explained(entry.extra):
            found = getattr(importlib.import_module(module), attribute)
        if not isinstance(found, click.Command):
            raise TypeError(f"{entry.path} is no command")
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Two sections, without importing anything."""
        for title, table in (("Agents", AGENTS), ("Operators", OPERATORS)):
            with formatter.section(title):
                formatter.write_dl([(name, entry.summary) for name, entry in table.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; its refusals become messages and exit codes."""
        try:
            return super().invoke(ctx)
        except BrokerError as error:
            raise Failed(error) from None
        except UnicodeEncodeError as error:
            # How Python hands on bytes of a command line that are no text (PEP 383). What was given is not quoted.
            odd = error.object[error.start : error.start + 1]
            if not "\udc80" <= odd <= "\udcff":
                raise
            raise click.UsageError(
                f"A value that was given is not UTF-8: it has the byte 0x{ord(odd) - 0xDC00:02x}."
            ) from None


@contextlib.contextmanager
def _extras_explained(extra: str) -> Iterator[None]:
    """Turns the absence of an extra's library into the command that installs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if not extra or missing.partition(".")[0] == "broker":
            raise
        raise click.ClickException(f"{missing} is not installed. Run: pip install 'jit-broker[{extra}]'") from None


_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version("jit-broker"), prog_name="broker")
@click.option(
    "--address", envvar="BROKER_ADDRESS", default="", metavar="HOST:PORT", show_envvar=True, help="The broker."
)
@click.option(
    "--server-name",
    envvar="BROKER_SERVER_NAME",
    default="brokerd",
    show_default=True,
    show_envvar=True,
    metavar="NAME",
    help="The DNS name the broker's certificate must have.",
)
@click.option(
    "--trust-domain",
    envvar="BROKER_TRUST_DOMAIN",
    default="",
    show_envvar=True,
    metavar="NAME",
    help="The broker's trust domain: its bundle alone is what the broker is believed by.  [default: your own]",
)
@click.option(
    "--workload-api",
    envvar="SPIFFE_ENDPOINT_SOCKET",
    default="",
    show_envvar=True,
    metavar="unix:///PATH",
    help="The SPIFFE Workload API that gives you your SVID.",
)
@click.option("--certificate", type=_FILE, metavar="FILE", help="Your SVID in PEM, instead of a Workload API (CI).")
@click.option("--key", type=_FILE, metavar="FILE", help="Its private key in PEM.")
@click.option("--bundle", type=_FILE, metavar="FILE", help="The bundle of the broker's trust domain in PEM.")
@click.option(
    "--audience",
    envvar="BROKER_AUDIENCE",
    default="",
    metavar="TEXT",
    show_envvar=True,
    help="A proxy is at the address; send it JWT-SVIDs for this audience.",
)
@click.option("--token-file", type=_FILE, metavar="FILE", help="A JWT-SVID for it, instead of the Workload API's.")
@click.option(
    "--seal/--no-seal",
    default=None,
    help="Have credentials sealed, so that nothing in between can read them.  [default: through a proxy]",
)
@click.pass_context
def cli(
    ctx: click.Context,
    address: str,
    server_name: str,
    trust_domain: str,
    workload_api: str,
    certificate: Path | None,
    key: Path | None,
    bundle: Path | None,
    audience: str,
    token_file: Path | None,
    seal: bool | None,
) -> None:
    """Just-in-time credentials: ask for exactly what a task needs, for minutes.

    \b
    broker exec --template orders-readonly --account shop --environment dev \\
                --resource orders --ttl 5m -- psql -c 'select count(*) from orders'

    Exit codes: 0 done; 1 something is wrong; 2 usage; 3 refused by the broker; 4 the broker, or
    something it needs, could not be reached. `broker exec` exits as its command does.
    """
    given = dict(os.environ)
    # gRPC's core writes its own view of a failed handshake to standard error; ours is in the message.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # py-spiffe logs what it also raises.
    logging.getLogger("spiffe").addHandler(logging.NullHandler())
    logging.getLogger("broker.client").addHandler(logging.NullHandler())
    ctx.obj = Settings(
        *(address, server_name, workload_api, certificate, key, bundle, given, audience, token_file, seal),
        trust_domain=trust_domain,
    )


def main() -> None:
    """The console script."""
    cli.main(prog_name="broker")
