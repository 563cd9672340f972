"""Check what a wheel holds: all of the package and its data, and nothing else. ``check_wheel.py WHEEL``."""

from __future__ import annotations

import os
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Data the code reads at run time; losing one shows only when it is used, far from here.
# What breaks the broker on purpose stands around its ports (tests/failpoints), and nowhere in the package.
HARM = re.compile(r"fail_?point|BROKER_BUG|fault_?inject", re.IGNORECASE)
DATA = (".sql", ".json", ".cedar", ".cedarschema", ".yaml", ".hcl", ".toml", ".typed")


def wanted() -> Iterator[str]:
    """Every file of the package, by its name in a wheel. Symbolic links are followed, as building does."""
    for folder, _, names in os.walk(ROOT / "broker", followlinks=True):
        paths = (Path(folder, name) for name in names)
        yield from (p.relative_to(ROOT).as_posix() for p in paths if p.suffix in (".py", ".pyi", *DATA))


def main(wheel: str) -> int:
    """Compare the wheel with the source tree; 1 and a line per difference."""
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        harmful = [name for name in sorted(held) if HARM.search(archive.read(name).decode(errors="replace"))]
    package = set(wanted())
    info = {name for name in held if ".dist-info/" in name}
    problems = [f"missing: {name}" for name in sorted(package - held)]
    problems += [f"has no business here: {name}" for name in sorted(held - info - package)]
    problems += [f"can be told to fail: {name}" for name in harmful]
    for needed in ("entry_points.txt", "licenses/LICENSE", "METADATA"):
        if not any(name.endswith(f".dist-info/{needed}") for name in info):
            problems.append(f"missing: .dist-info/{needed}")
    for problem in problems:
        sys.stderr.write(f"{Path(wheel).name}: {problem}\n")
    if not problems:
        data = sum(name.endswith(DATA) for name in package)
        sys.stdout.write(f"{Path(wheel).name}: {len(package)} files of broker, {data} of them data, and nothing else\n")
    return 1 if problems else 0


def _below(directory: Path) -> Iterator[Path]:
    """Every file, also behind a link (broker/dev/deploy is deploy/dev), as building a wheel sees it."""
    for folder, _, names in os.walk(directory, followlinks=True):
        yield from (Path(folder, name) for name in names)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
