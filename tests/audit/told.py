"""What an auditor reads of each tampering, word by word: ``told.txt``.

``python -m tests.audit.told`` writes it anew; what it changed is then to be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from broker.audit.offline import Audit
from broker.audit.verify import Finding

TOLD = Path(__file__).with_name("told.txt")


def read() -> Mapping[str, list[str]]:
    """The findings by the name of the tampering: a name stands alone, and what is found is indented below it."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in TOLD.read_text().splitlines():
        if line.startswith("  "):
            found[name].append(line[2:])
        else:
            name = line
            found[name] = []
    return found


def lines(audit: Audit, found: Sequence[Finding]) -> list[str]:
    """What is found, and how far the trail is proven."""
    proven = f"{audit.records} records, {audit.checkpoints} checkpoints: {audit.signed} signed, {audit.witnessed} seen"
    return [*map(str, found), proven]


if __name__ == "__main__":
    from tests.audit.test_tamperings import ALL

    texts = {name: lines(*tamper().verify()) for name, (tamper, _, _) in ALL.items()}
    TOLD.write_text("".join(f"{name}\n" + "".join(f"  {each}\n" for each in told) for name, told in texts.items()))
