"""Use the base install as an agent's machine would: ``check_base.py VENV``, run by that environment's Python.

The base is the SDK and the command line. It must work without the daemon's libraries, and explain itself
where there is no broker to talk to.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path


def run(*command: str) -> tuple[int, str]:
    """Exit code and everything printed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 - ours
    return done.returncode, done.stdout + done.stderr


def main(venv: str) -> int:
    """Every check in turn; 1 and a line for each that fails."""
    problems = []

    def expect(what: str, holds: bool, seen: object = "") -> None:
        sys.stdout.write(f"{'ok ' if holds else 'BAD'} {what}\n")
        if not holds:
            problems.append(what)
            sys.stdout.write(f"{seen}\n")

    import broker
    import broker.client

    where = Path(broker.__file__ or "").resolve()
    expect("broker.client imports, from the installed package", where.is_relative_to(Path(venv).resolve()), where)
    expect("it is typed for its users", (where.parent / "py.typed").exists())
    strays = [name for name in ("boto3", "hvac", "cedarpy", "pytest", "moto") if importlib.util.find_spec(name)]
    expect("the daemon's libraries are not here", not strays, strays)

    broker_command = str(Path(venv) / "bin" / "broker")
    code, text = run(broker_command, "--help")
    expect("`broker --help` lists the commands", code == 0 and "request" in text and "exec" in text, text)
    code, text = run(broker_command, "--version")
    expect("`broker --version` tells the version", code == 0 and importlib.metadata.version("jit-broker") in text, text)
    code, text = run(broker_command, "doctor")
    explained = code == 1 and "Traceback" not in text and "SPIFFE_ENDPOINT_SOCKET" in text
    expect(
        "`broker doctor` says what is missing where nothing is set up, exit code 1", explained, f"exit {code}: {text}"
    )
    code, text = run(broker_command, "login")
    explained = code == 2 and "Traceback" not in text and "BROKER_OIDC_ISSUER" in text
    expect("`broker login` says what to set, exit code 2", explained, f"exit {code}: {text}")
    code, text = run(str(Path(venv) / "bin" / "brokerd"), "--config", "brokerd.yaml")
    explained = code != 0 and "Traceback" not in text and "jit-broker[daemon]" in text
    expect("`brokerd` names the extra it needs", explained, f"exit {code}: {text}")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
