"""brokerd: the only place that wires the rooms together."""

from broker.daemon.main import main

__all__ = ["main"]
