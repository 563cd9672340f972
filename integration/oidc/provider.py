"""The real provider as a process: ``npm ci`` by the files beside this one, then node; and what a test may do to it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

HERE = Path(__file__).resolve().parent
CLIENT, OTHER_CLIENT = "jit-broker", "another-application"
STRONG, WEAK = "urn:example:two-factors", "urn:example:password"
_INSTALL_SECONDS = 300


@dataclass(frozen=True)
class Account:
    """Somebody the provider knows. ``otp``: the second factor, which makes a login a strong one."""

    password: str
    otp: str
    groups: tuple[str, ...]
    name: str
    email: str = ""


def missing_programs() -> list[str]:
    """What has to be on the machine for any of this."""
    return [each for each in ("node", "npm") if shutil.which(each) is None]


def install() -> None:
    """Exactly the locked packages; done once, and again when the lock changes. No package runs a script of its own."""
    lock, done = HERE / "package-lock.json", HERE / "node_modules" / ".locked"
    if done.exists() and done.read_bytes() == lock.read_bytes():
        return
    command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    subprocess.run(command, cwd=HERE, check=True, timeout=_INSTALL_SECONDS, stdin=subprocess.DEVNULL)
    done.write_bytes(lock.read_bytes())


class Provider:
    """A context manager: runs while it is open, and logs to ``log``."""

    def __init__(self, accounts: Mapping[str, Account], log: Path) -> None:
        told = json.dumps({subject: asdict(each) for subject, each in accounts.items()})
        self._command = ["node", str(HERE / "provider.mjs"), "0", told]
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self.issuer = ""
        self.key_id = ""

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={"PATH": os.environ["PATH"]},
            )
        said = self._answer()
        self.issuer, self.key_id = said["issuer"], said["kid"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._pipe(self._process.stdin).close()
        self._process.wait(60)
        self._pipe(self._process.stdout).close()

    def rotate(self) -> None:
        """Sign with a new key; the old one is still published."""
        self._tell("rotate")

    def forget(self) -> None:
        """Publish the newest key alone."""
        self._tell("forget")

    def _tell(self, command: str) -> None:
        assert self._process is not None
        stdin = self._pipe(self._process.stdin)
        stdin.write(f"{command}\n")
        stdin.flush()
        self.key_id = self._answer()["kid"]

    def _answer(self) -> dict[str, Any]:
        assert self._process is not None
        line = self._pipe(self._process.stdout).readline()
        assert line, f"the provider ended: {self._log.read_text()}"
        said: dict[str, Any] = json.loads(line)
        return said

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe
