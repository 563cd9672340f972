"""Ask a vulnerability service about every locked package, on any platform; ``make lint`` runs it.

Three outcomes, never mixed up: *audited* (exit 0), *known vulnerability, or a package the service could
not tell about* (exit 1), and *NOT AUDITED*, said loudly, where no service that can be believed was
reached (exit 0, so that work goes on without a network; 1 with ``AUDIT=required``, for releases).

A service is believed only if it calls a version vulnerable that has been so for years: a mirror that
answers "nothing known" about everything is no audit.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lock import HERE, LOCKS, pins

# CVE-2019-10906 and others: sandbox escape, fixed in 2.10.1.
KNOWN_VULNERABLE = "jinja2==2.10"
SERVICES = ("pypi", "osv")

Answers = Mapping[str, Mapping[str, Any]]
# (service, pins) to the answers by name, or None and why there are none.
Ask = Callable[[str, list[str]], tuple[Answers | None, str]]


def ask(service: str, pinned: list[str]) -> tuple[Answers | None, str]:
    """What ``service`` says of each ``name==version``, by name; None, and why, if it said nothing."""
    with tempfile.TemporaryDirectory() as directory:
        requirements = Path(directory) / "pins.txt"
        requirements.write_text("\n".join(pinned) + "\n")
        command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--no-deps", "--progress-spinner=off"]
        command += ["--format=json", "--timeout=10", f"--vulnerability-service={service}", f"-r{requirements}"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own arguments
    try:
        return {entry["name"]: entry for entry in json.loads(run.stdout)["dependencies"]}, ""
    except ValueError:
        lines = run.stderr.strip().splitlines() or [f"exit code {run.returncode}, nothing said"]
        return None, lines[-1]


def doubt(service: str, ask: Ask) -> str:
    """Why the service cannot be believed; empty if it can."""
    answers, why = ask(service, [KNOWN_VULNERABLE])
    if answers is None:
        return why
    entry = next(iter(answers.values()), {})
    return "" if entry.get("vulns") else entry.get("skip_reason", f"it knows nothing against {KNOWN_VULNERABLE}")


def findings(answers: Answers, names: set[str]) -> list[str]:
    """One line per package that is vulnerable, was skipped, or is not in the answer at all."""
    found = [f"{name}: the answer does not mention it" for name in sorted(names - set(answers))]
    for name, entry in sorted(answers.items()):
        if "vulns" not in entry:
            found.append(f"{name}: NOT AUDITED, {entry.get('skip_reason', 'no reason given')}")
        for vulnerability in entry.get("vulns", ()):
            fixed = ", ".join(vulnerability["fix_versions"]) or "no version yet"
            found.append(f"{name} {entry['version']}: {vulnerability['id']}, fixed in {fixed}")
    return found


def audit(locked: Mapping[str, str], ask: Ask) -> int:
    """Audit name-to-version pairs with the first service that can be believed; the exit code."""
    refusals = []
    for service in SERVICES:
        why = doubt(service, ask)
        if why:
            refusals.append(f"  {service}: {why}")
            continue
        answers, why = ask(service, [f"{name}=={version}" for name, version in sorted(locked.items())])
        found = [why] if answers is None else findings(answers, set(locked))
        sys.stderr.writelines(f"pip-audit: {line}\n" for line in found)
        if not found:
            sys.stdout.write(f"pip-audit: {len(locked)} packages, nothing known ({service})\n")
        return 1 if found else 0
    sys.stdout.write(
        f"\n*** pip-audit: NOT AUDITED: none of {len(locked)} packages was checked for known vulnerabilities,\n"
        "*** because no vulnerability service could be reached and believed:\n" + "\n".join(refusals) + "\n\n"
    )
    return 1 if os.environ.get("AUDIT") == "required" else 0


def main() -> int:
    """Audit everything that any lock names."""
    return audit({pin.name: pin.version for lock in LOCKS for pin in pins((HERE / f"{lock}.txt").read_text())}, ask)


if __name__ == "__main__":
    raise SystemExit(main())
