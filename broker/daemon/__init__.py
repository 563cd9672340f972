"""brokerd: the only place that wires the rooms together."""

from __future__ import annotations

import gc
import sys


def main() -> int:
    """The ``brokerd`` command. The base install has it too, without its libraries: then it says what to install."""
    # What is imported stays: a sixth of the start would go into looking whether it is still needed.
    gc.disable()
    try:
        from broker.daemon.main import main as run
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] == "broker":
            raise
        sys.stderr.write(f"brokerd: {missing.name} is not installed. Run: pip install 'jit-broker[daemon]'\n")
        return 1
    finally:
        gc.enable()
    return run()


__all__ = ["main"]
