"""``broker demo``: the main story on real parts, told without questions; each step is checked.

Belongs here: the story. It stands in the command line's room, above the doors, because it plays everybody:
the agents with the SDK, the attacker with the agent's login, the auditor with the trail. What it runs on is
``broker/dev``.
"""

from broker.cli.demo.command import demo

__all__ = ["demo"]
