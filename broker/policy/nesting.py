"""How deep a policy may be nested: told before the engine sees its text, and again before we walk what it made of it.

The engine's parser (cedarpy 4.12) goes down a level of its stack for each bracket and each ``if``, and has no bound of
its own: some hundred brackets end the *process*, which no ``except`` prevents. So brackets and what else deepens a
tree are counted in the text first. What is left, a chain of some hundred ``||``, is a tree as deep as it is long.

Does not belong here: what a policy says.
"""

from __future__ import annotations

import json
import re
from typing import Any

# Crashed at about 900 brackets, 10,000 ``if``, 20,000 indices (8 MiB of stack, measured).
MAX_BRACKETS = 64
MAX_OPERATORS = 2000
# Levels of the tree: each operator and its operands are two.
MAX_LEVELS = 400
_WORD = re.compile(r'//[^\n]*|"(?:\\.|[^"\\])*"|[(\[{]|[)\]}]|&&|\|\||[-+*!.]|\b(?:if|has|in|is|like)\b', re.DOTALL)
HINT = "Take a list (resource.account in many: [...].contains(resource.account)), or make several policies of it."


def too_deep(text: str) -> str | None:
    """Why ``text``, one policy, is not handed to the engine; None if it may be."""
    depth = operators = 0
    for found in _WORD.finditer(text):
        word = found.group()
        if word in "([{":
            depth += 1
            if depth > MAX_BRACKETS:
                return f"is nested deeper than {MAX_BRACKETS} brackets"
        elif word in ")]}":
            depth = max(depth - 1, 0)
        if word[0] not in ')]}"/':  # an opening bracket may be an index: a["b"]["c"] is as deep as it is long
            operators += 1
            if operators > MAX_OPERATORS:
                return f"has more than {MAX_OPERATORS} operators and brackets"
    return None


def tree(policies: str) -> Any:
    """What the engine made of a text (Cedar's JSON format), or None where it is deeper than anything may walk it."""
    try:
        made = json.loads(policies)
    except RecursionError:
        return None
    level = [made]
    for _ in range(MAX_LEVELS):
        level = [inner for node in level for inner in _inner(node)]
        if not level:
            return made
    return None


def _inner(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []
