"""An agent's text as it may be shown to an approver: readable, and unable to do anything.

Control characters move a terminal's cursor and repaint what the broker wrote; format characters reverse the order
of letters or hide them. Each is shown as what it is. Letters that look like others stay: what decides is never a
name in such a text.
"""

from __future__ import annotations

import unicodedata

# Control, format, surrogate, private, unassigned; line and paragraph separators.
_ACTIVE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def inert(text: str, *, lines: bool = False) -> str:
    """``text`` with every active character written as ``<U+001B>``; with ``lines``, line feeds and tabs stay."""
    return "".join(_shown(each, lines=lines) for each in text)


def _shown(character: str, *, lines: bool) -> str:
    if character.isascii() and character.isprintable():
        return character
    if lines and character in ("\n", "\t"):
        return character
    return f"<U+{ord(character):04X}>" if unicodedata.category(character) in _ACTIVE else character
