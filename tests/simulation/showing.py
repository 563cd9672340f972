"""In which worlds planted bugs show soonest: how many replicas they have, and how long they go on."""

from __future__ import annotations

from tests.simulation.bugs_of_clocks import OF_CLOCKS
from tests.simulation.bugs_of_several import OF_SEVERAL

# A machine's clock counts only where there is one broker, a server's where there are several; and so on.
SHOWS_WITH = {
    **dict.fromkeys((*OF_SEVERAL, *OF_CLOCKS), 3),
    "recovery-is-heard-with-the-beat-alone": 3,
    "claims-for-ever": 2,  # one that starts alone takes over whatever an earlier one had
    # Found at the end, when nothing is left to do for half an hour: the fewer wait, the sooner.
    **dict.fromkeys(("failures-are-dropped", "never-due", "nobody-looks", "completion-leaves-leases"), 1),
    **dict.fromkeys(("time-goes-back", "grants-in-doubt", "over-by-any-clock"), 1),
    "glass-over-suspensions": 1,
    "steps-are-free-when-they-end": 1,
    "emergencies-without-number": 2,
    "words-of-another-find": 2,
}
# In steps. One that shows when a world ends shows sooner in short ones.
_SHORT = 50_000
# To heal a world takes half as many steps again, and does not show what has to happen while it is lived in.
_LONG = 250_000
_WHILE_IT_IS_LIVED_IN = {
    "glass-over-suspensions",
    "emergencies-without-number",
    "words-of-another-find",
    "steps-are-free-when-they-end",
}


def steps_with(bug: str) -> int:
    """How long each world goes on."""
    return _LONG if bug in _WHILE_IT_IS_LIVED_IN else _SHORT
