"""What the environment's BROWSER runs in these stories: a person who does what each page asks.

In the background, because a browser's window does not hold up whoever opened it.
"""

from __future__ import annotations

import os
from typing import Any

from integration.oidc.browser import Person


def main(person: dict[str, Any], url: str) -> None:
    """Returns at once; the visit goes on."""
    if os.fork():
        return
    os.setsid()
    Person(**person).visit(url)
