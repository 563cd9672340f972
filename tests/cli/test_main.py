"""The command as a whole: help, lazy loading, the base install, errors and exit codes."""

from __future__ import annotations

import importlib
import subprocess
import sys

import click
import pytest

from broker import errors
from broker.api.errors import STATUS
from broker.cli.main import COMMANDS, exit_code
from broker.cli.main import cli as command
from broker.errors import BrokerError, Denied, NotReady, Reason
from tests.cli.conftest import COMMAND, ROOT, Cli
from tests.client.fake_broker import FakeBroker
from tests.patience import PATIENCE

# Every module of the daemon's libraries that could be imported by mistake.
DAEMON_ONLY = (
    *("aiohttp", "apscheduler", "boto3", "botocore", "cedarpy", "grpc_health", "grpc_reflection", "hvac"),
    *(
        "jsonschema",
        "orjson",
        "prometheus_client",
        "protovalidate",
        "pydantic",
        "securesystemslib",
        "yaml",
        "structlog",
    ),
)
# Makes them as absent as they are in the base install.
BLOCKED = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {DAEMON_ONLY!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BLOCKED + code, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE
    )


def test_the_base_install_has_the_sdk_and_every_agents_command() -> None:
    done = python(
        "import broker.client, broker.client.sync, broker.client.workload_api\n"
        "from broker.cli.main import AGENTS, cli\n"
        "import click\n"
        "for name in AGENTS: assert cli.get_command(click.Context(cli), name) is not None, name\n"
        "print('fine')"
    )
    assert (done.stdout, done.stderr) == ("fine\n", "")


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("check", "deploy/dev"), "daemon"),
        (("audit", "verify", "--database", "x"), "daemon"),
        (("reload", "--config", "x"), "daemon"),
    ],
)
def test_an_operators_command_says_what_to_install(arguments: tuple[str, ...], extra: str) -> None:
    done = python("from broker.cli.main import main; main()", *arguments)
    assert done.returncode == 1
    assert f"pip install 'jit-broker[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_imports_no_command() -> None:
    done = python(
        "from broker.cli.main import cli\n"
        "try: cli.main(['--help'], prog_name='broker')\n"
        "except SystemExit: pass\n"
        "assert not [name for name in sys.modules if name.startswith(('grpc', 'spiffe', 'broker.client'))]"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: broker [OPTIONS] COMMAND [ARGS]...")
    for name, entry in COMMANDS.items():
        assert f"  {name}" in done.stdout
        assert entry.summary.split()[0] in done.stdout


def test_the_help_of_every_agents_command_reads_well() -> None:
    """Every command and every option says what it is for; sentences end."""

    def walk(found: click.Command, path: str) -> None:
        assert found.help, path
        assert found.help.strip().splitlines()[0].rstrip().endswith((".", ":", ",")) or "\n" in found.help, path
        for each in found.params:
            if isinstance(each, click.Option):
                assert each.help, f"{path} {each.name}"
        if isinstance(found, click.Group):
            for name, sub in getattr(found, "commands", {}).items():
                walk(sub, f"{path} {name}")

    from broker.cli.main import AGENTS

    context = click.Context(command)
    for name in (*AGENTS, "deploy", "reload", "audit", "suspend", "resume", "suspensions", "operator"):
        found = command.get_command(context, name)
        assert found is not None
        walk(found, name)


def test_an_unknown_command_is_a_usage_error(cli: Cli) -> None:
    done = cli("sudo")
    assert done.returncode == 2
    assert "No such command 'sudo'" in done.stderr


@pytest.mark.parametrize(
    ("family", "code"),
    [
        (errors.Unauthenticated, 3),
        (errors.InvalidInput, 3),
        (errors.Denied, 3),
        (errors.NotFound, 3),
        (errors.Conflict, 3),
        (errors.WrongState, 3),
        (errors.Exhausted, 3),
        (errors.UpstreamFailed, 4),
        (errors.NotReady, 4),
        (errors.Tampered, 1),
        (errors.Defect, 1),
    ],
)
def test_exit_codes_tell_refused_from_unreachable_from_wrong(family: type[BrokerError], code: int) -> None:
    assert exit_code(family(Reason.INTERNAL, "x")) == code
    assert family in STATUS


def test_a_missing_setting_is_a_usage_error() -> None:
    assert exit_code(errors.InvalidInput(Reason.CONFIG_INVALID, "x")) == 2


def test_an_error_has_its_reason_its_message_and_a_hint(cli: Cli, fake: FakeBroker) -> None:
    fake.faults["WhoAmI"] = [Denied(Reason.AGENT_NOT_REGISTERED, "You are nobody.", hint="Be somebody.")]
    done = cli("whoami")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "error: AGENT_NOT_REGISTERED: You are nobody.\nhint: Be somebody.\n"


@pytest.mark.parametrize("given", [("task", "start", "--purpose", "d\udce9j\udce0"), ("leases", "get", "\udcff")])
def test_what_is_no_utf_8_is_a_usage_error(cli: Cli, fake: FakeBroker, given: tuple[str, ...]) -> None:
    """As a terminal of another encoding sends it. It ended in a traceback; what was given is not quoted."""
    done = cli(*given)
    assert (done.returncode, done.stdout) == (2, "")
    assert "A value that was given is not UTF-8: it has the byte 0x" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unreachable_broker_exits_4(cli: Cli, fake: FakeBroker) -> None:
    fake.faults["WhoAmI"] = [NotReady(Reason.SHUTTING_DOWN, "Bye.")] * 4
    assert cli("whoami").returncode == 4


def test_without_an_address_there_is_nothing_to_talk_to(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [*COMMAND, "whoami"], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=PATIENCE
    )
    assert done.returncode == 2
    assert "error: CONFIG_INVALID: There is no broker address." in done.stderr
    assert "BROKER_ADDRESS" in done.stderr


def test_nothing_of_grpc_or_py_spiffe_is_on_standard_error(fake: FakeBroker, environment: dict[str, str]) -> None:
    done = subprocess.run(
        [*COMMAND, "--address", fake.address, "--workload-api", "unix:///nonexistent.sock", "whoami"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        timeout=PATIENCE,
    )
    assert done.returncode == 3
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["error", "hint"]


def test_every_command_of_the_table_is_there() -> None:
    for name, entry in COMMANDS.items():
        module, _, attribute = entry.path.partition(":")
        assert isinstance(getattr(importlib.import_module(module), attribute), click.Command), name
