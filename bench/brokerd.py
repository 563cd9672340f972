"""``python -m bench.brokerd --config FILE``: brokerd as it is, with the no-op connector in place of all others."""

from __future__ import annotations

import sys

from bench.noop import build
from broker.daemon.main import main

if __name__ == "__main__":
    sys.exit(main(connectors=build))
