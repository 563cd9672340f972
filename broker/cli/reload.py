"""``broker reload``: have a running brokerd on this machine take in its deploy files.

Belongs here: checking first, the signal, and waiting for what brokerd says came of it. brokerd answers in
``reload.json`` in its state directory; an answer is ours if its generation, or the process, is new, and if it was
begun after we asked: what was being taken in before may be older than what we have checked.
"""

from __future__ import annotations

import json
import math
import os
import signal
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path, PurePath

import click

from broker.cli.output import format_option
from broker.cli.settings import EXIT_WRONG
from broker.cli.values import Span
from broker.config import load_config
from broker.deployfiles import load
from broker.deployfiles.signers import signers_of
from broker.errors import NotReady, Reason
from broker.files import Problems

_BETWEEN_LOOKS_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Answer:
    """What brokerd said came of one reload."""

    generation: int
    pid: int
    begun: float  # by the machine's running clock
    ok: bool
    digest: str
    problems: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Answer | None:
        """The last answer; None before the first. Raises NotReady where it is not ours to read."""
        try:
            told = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreachable(path, error.strerror) from None
        begun = told.get("begun", math.inf)  # a brokerd of before does not say
        return cls(told["generation"], told.get("pid", 0), begun, told["ok"], told["digest"], tuple(told["problems"]))

    def answers(self, asked: float, before: Answer | None) -> bool:
        """Whether it is about what was there at ``asked``, and was said after ``before``."""
        new = before is None or (self.pid, self.generation) != (before.pid, before.generation)
        return new and self.begun >= asked


@click.command()
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    required=True,
    metavar="FILE",
    help="brokerd's own configuration file.",
)
@click.option("--timeout", type=Span(), default="30s", show_default=True, help="How long to wait for brokerd's answer.")
@format_option("text", "json")
def reload(config_file: Path, timeout: timedelta, form: str) -> None:
    """Check the deploy files, then have brokerd reload them, and tell what is in force.

    A set that does not pass the check never reaches brokerd. Exits 1 if the check or brokerd refuses the set; what was
    in force stays in force then.
    """
    try:
        config = load_config(config_file)
        load(config.deploy.directory, config.trust_domain, signers_of(config))
    except Problems as refused:
        for problem in refused.problems:
            click.echo(str(problem), err=True)
        raise SystemExit(EXIT_WRONG) from None
    state = config.state.directory
    before, asked = Answer.read(state / "reload.json"), time.monotonic()
    os.kill(_pid(state / "brokerd.pid"), signal.SIGHUP)
    answer = _wait(state / "reload.json", asked, before, timeout)
    if form == "json":
        told = {"generation": answer.generation, "ok": answer.ok, "digest": answer.digest, "problems": answer.problems}
        click.echo(json.dumps(told, indent=2))
    else:
        for line in answer.problems:
            click.echo(line, err=True)
        outcome = "in force" if answer.ok else "refused; still in force is"
        click.echo(f"{outcome} sha256:{answer.digest}")
    if not answer.ok:
        raise SystemExit(EXIT_WRONG)


def _pid(path: Path) -> int:
    try:
        pid = int(path.read_text())
        os.kill(pid, 0)
        # A pid file outlives a killed brokerd, and SIGHUP ends most programs that get the same pid later.
        if not _is_brokerd(pid):
            raise ValueError
    except (OSError, ValueError) as error:
        raise _unreachable(path, error.strerror if isinstance(error, OSError) else None) from None
    return pid


def _unreachable(path: Path, why: str | None) -> NotReady:
    return NotReady(
        Reason.BROKER_UNREACHABLE,
        f"No brokerd to be told: {path}: {why or 'it does not name a running brokerd'}.",
        hint="Is brokerd running with this configuration, on this machine, and are you its user?",
        metadata={"pidFile": str(path)},
    )


def _is_brokerd(pid: int) -> bool:
    """Whether the process was started as ``brokerd`` or ``python -m broker.daemon``; True where nobody can tell."""
    if not Path("/proc/self").exists():
        return True
    arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return any(PurePath(os.fsdecode(each)).name in ("brokerd", "broker.daemon") for each in arguments)


def _wait(path: Path, asked: float, before: Answer | None, timeout: timedelta) -> Answer:
    deadline = time.monotonic() + timeout.total_seconds()
    while time.monotonic() < deadline:
        answer = Answer.read(path)
        if answer is not None and answer.answers(asked, before):
            return answer
        time.sleep(_BETWEEN_LOOKS_SECONDS)
    raise NotReady(
        Reason.CALL_TIMED_OUT,
        f"brokerd did not answer within {timeout}.",
        hint="Its log says what it is doing.",
        metadata={"file": str(path)},
    )
