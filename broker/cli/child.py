"""Running a command as a shell would: its signals, its descriptors, its exit code.

Belongs here: the process. What it is given and what happens afterwards is ``exec.py``.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from broker.cli.output import note

FORWARDED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
# As shells do (POSIX.1-2024, 2.8.2): 128 and the signal's number; 127 not found, 126 not executable.
_SIGNALLED, _NOT_FOUND, _NOT_EXECUTABLE = 128, 127, 126


class Signals:
    """What happens to signals, phase by phase: before the command they end us, during it they are passed on,
    after it they are only remembered, because what is left to do is ending leases.

    What was to be ignored when we were started (by `nohup`, or by a script with `&`) is ignored throughout, also by
    the command, which inherits that. A context manager around all three phases, inside the running loop.
    """

    def __init__(self, numbers: Iterable[signal.Signals] = FORWARDED) -> None:
        self.stopped_by: int | None = None
        self._handed_on = _given()  # now: what is opened from here on is ours
        self._heard = [each for each in numbers if signal.getsignal(each) is not signal.SIG_IGN]
        self._child: asyncio.subprocess.Process | None = None
        self._ending = False
        self._main: asyncio.Task[object] | None = None

    def __enter__(self) -> Signals:
        self._main = asyncio.current_task()
        for number in self._heard:
            asyncio.get_running_loop().add_signal_handler(number, self._received, number)
        return self

    def __exit__(self, *exception: object) -> None:
        for number in self._heard:
            asyncio.get_running_loop().remove_signal_handler(number)

    async def run(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """The exit code of ``command``, which has this environment and every descriptor that we were given."""
        try:
            self._child = await asyncio.create_subprocess_exec(
                *command, env=dict(environment), pass_fds=self._handed_on
            )
        except FileNotFoundError:
            return _cannot_run(command[0], "not found", _NOT_FOUND)
        except OSError as error:
            return _cannot_run(command[0], error.strerror or "cannot be run", _NOT_EXECUTABLE)
        code = await self._child.wait()
        self.end()
        return code if code >= 0 else _SIGNALLED - code

    def end(self) -> None:
        """From here on, signals change nothing."""
        self._ending = True

    @property
    def exit_code(self) -> int:
        """The exit code of who was stopped by a signal before there was a command."""
        return _SIGNALLED + (self.stopped_by or 0)

    def _received(self, number: int) -> None:
        if self._ending:
            return
        if self._child is not None:
            if self._child.returncode is None and not _from_terminal(number):
                self._child.send_signal(number)
            return
        self.stopped_by = number
        self._ending = True
        if self._main is not None:
            self._main.cancel()


def _given() -> tuple[int, ...]:
    """The descriptors that whoever started us left open for programs: bash's ``<(...)``, make's jobserver."""
    try:
        numbers = [int(each.name) for each in Path("/dev/fd").iterdir()]
    except OSError:
        return ()
    return tuple(each for each in numbers if each > 2 and _inheritable(each))


def _inheritable(descriptor: int) -> bool:
    try:
        return os.get_inheritable(descriptor)
    except OSError:  # the listing's own
        return False


def _from_terminal(number: int) -> bool:
    """Whether the command has this signal already: Ctrl-C and Ctrl-\\ go to the whole foreground group."""
    if number not in (signal.SIGINT, signal.SIGQUIT):
        return False
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _cannot_run(command: str, why: str, code: int) -> int:
    note(f"{command}: {why}")
    return code
