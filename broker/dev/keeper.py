"""A small parent for one server, so that no server outlives the process that wanted it.

Run as a script, ``python -I -S keeper.py STOP_SIGNAL GRACE UID GID -- COMMAND...``: starts COMMAND
(as UID and GID unless they are ``-``), prints its process id, waits, exits with its code. When
standard input ends, the wanting process has ended, whatever ended it (SIGKILL included): COMMAND
gets STOP_SIGNAL and, GRACE seconds later, SIGKILL. What COMMAND leaves behind in its process group is
killed when it has ended.

Why not ``PR_SET_PDEATHSIG``: the kernel clears it when the child changes its uid, and it fires when
the *thread* that forked ends, which in a thread pool is soon (prctl(2)). Standard library only and
no ``site``: it starts in a hundredth of a second.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from typing import NoReturn


def main(arguments: list[str]) -> int:
    """Keep one server; returns its exit code, or 128 + the signal that ended it."""
    stop_signal, grace, uid, gid, _, *command = arguments
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    server = _spawn(command, uid, gid)
    os.write(1, f"{server.pid}\n".encode())
    os.close(1)
    threading.Thread(target=_stop_at_end_of_input, args=(server, int(stop_signal), float(grace)), daemon=True).start()
    try:
        code = server.wait()
    except SystemExit:
        _stop(server, int(stop_signal), float(grace))
        raise
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(server.pid, signal.SIGKILL)
    return code if code >= 0 else 128 - code


def _spawn(command: list[str], uid: str, gid: str) -> subprocess.Popen[bytes]:
    """The server, in a group of its own, our standard error its only output; stepping down, it loses our groups."""
    steps_down = uid != "-"
    return subprocess.Popen(  # nosec B603 # noqa: S603 - the caller's own list
        command,
        stdin=subprocess.DEVNULL,
        stdout=2,
        process_group=0,
        user=int(uid) if steps_down else None,
        group=int(gid) if steps_down else None,
        extra_groups=[] if steps_down else None,
    )


def _stop_at_end_of_input(server: subprocess.Popen[bytes], stop_signal: int, grace: float) -> None:
    while os.read(0, 4096):
        continue
    _stop(server, stop_signal, grace)


def _stop(server: subprocess.Popen[bytes], stop_signal: int, grace: float) -> None:
    server.send_signal(stop_signal)
    try:
        server.wait(grace)
    except subprocess.TimeoutExpired:
        server.kill()


def _leave(signum: int, frame: object) -> NoReturn:
    raise SystemExit(128 + signum)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
