"""``python -m tests.fuzz [--seconds N] [target ...]``: coverage-guided fuzzing with Atheris (libFuzzer).

Each target runs in a process of its own. What it learns stays in ``.fuzz/``, so that the next run goes on from
there; a finding is written to ``tests/fuzz/found/``, where `make test` replays it from then on, and the exit code
is 1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
LEARNT = HERE.parents[1] / ".fuzz"
# A certificate of ours has some 600 bytes; beyond this size only lengths would be new.
MAX_BYTES = 4096
HANG_SECONDS = 2
MEMORY_MIB = 2048


def main() -> int:
    """Fuzz the named targets, or all of them, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: 60)")
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("targets", nargs="*")
    arguments = parser.parse_args()
    if arguments.seconds < 1:
        parser.error("--seconds is at least 1")
    if arguments.in_this_process:
        _fuzz(arguments.targets[0], arguments.seconds)
    return max(_run(each, arguments.seconds) for each in arguments.targets or _names())


def _names() -> list[str]:
    from tests.fuzz.targets import TARGETS

    return list(TARGETS)


def _run(target: str, seconds: int) -> int:
    print(f"=== {target}, {seconds} s", flush=True)
    command = [sys.executable, "-m", "tests.fuzz", "--in-this-process", "--seconds", str(seconds), target]
    return 1 if subprocess.run(command, cwd=HERE.parents[1], check=False).returncode else 0


def _fuzz(target: str, seconds: int) -> None:
    """Does not return: libFuzzer ends the process, with 0 if nothing was found."""
    import atheris  # type: ignore[import-untyped]  # only `make fuzz` has it

    # Instrumented while they are imported: the readers, and what they read with.
    with atheris.instrument_imports(include=["broker.identity", "jwt", "json", "spiffe.spiffe_id", "spiffe.svid"]):
        from tests.fuzz.targets import TARGETS
    from tests.fuzz.seeds import FOUND, seeds

    learnt, found = LEARNT / target, FOUND / target
    learnt.mkdir(parents=True, exist_ok=True)
    found.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(seeds(target)):
            (Path(folder) / str(number)).write_bytes(data)
        options = (
            f"-max_total_time={seconds}",
            f"-timeout={HANG_SECONDS}",
            f"-max_len={MAX_BYTES}",
            f"-rss_limit_mb={MEMORY_MIB}",
            f"-artifact_prefix={found}/",
            "-print_final_stats=1",
            "-verbosity=1",
        )
        atheris.Setup([target, *options, str(learnt), folder], TARGETS[target])
        atheris.Fuzz()


if __name__ == "__main__":
    raise SystemExit(main())
