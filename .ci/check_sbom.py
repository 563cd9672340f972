"""Check that a CycloneDX bill of materials holds exactly what the lock installs. ``check_sbom.py FILE``."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

LOCK = Path(__file__).resolve().parent.parent / "requirements" / "daemon.txt"
_PIN = re.compile(r"^([a-z0-9][a-z0-9.-]*)==([^ ;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def locked() -> dict[str, set[str]]:
    """Package URL of each pin of the lock, with its digests."""
    pins: dict[str, set[str]] = {}
    digests: set[str] = set()
    for line in LOCK.read_text().splitlines():
        if pin := _PIN.match(line):
            digests = pins[f"pkg:pypi/{pin[1]}@{pin[2]}"] = set()
        digests |= set(_HASH.findall(line))
    return pins


def told(bill: dict[str, Any]) -> dict[str, set[str]]:
    """The same, as the bill of materials tells it."""
    return {
        component["purl"]: {
            digest["content"]
            for reference in component.get("externalReferences", ())
            for digest in reference.get("hashes", ())
        }
        for component in bill["components"]
    }


def main(path: str) -> int:
    """Compare; 1 and a line per difference."""
    bill = json.loads(Path(path).read_text())
    wanted, found = locked(), told(bill)
    problems = [f"missing: {purl}" for purl in sorted(wanted.keys() - found.keys())]
    problems += [f"in no lock: {purl}" for purl in sorted(found.keys() - wanted.keys())]
    problems += [
        f"other digests: {purl}" for purl in sorted(wanted.keys() & found.keys()) if wanted[purl] != found[purl]
    ]
    if bill["metadata"]["component"]["name"] != "jit-broker":
        problems.append(f"of something else: {bill['metadata']['component']['name']}")
    for problem in problems:
        sys.stderr.write(f"{Path(path).name}: {problem}\n")
    if not problems:
        sys.stdout.write(f"{Path(path).name}: the {len(wanted)} packages of brokerd's lock, each with its digests\n")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
