"""Log lines: one structured event per line, on standard error, never a secret, and not the same one for ever.

Belongs here: how a line looks (``lines``) and what is kept back (``repeats``). Does not belong here: what is worth one.
"""

from broker.logs.lines import configure

__all__ = ["configure"]
