"""Texts that have the shape of a credential.

An agent that is confused, or talked into it, puts a key where a reason belongs; what the broker is told there goes
into its ledger, its trail and whatever reads these. So such a request is refused before anything of it is kept. Only
shapes that nothing else has are known here: their prefixes are documented by those who issue them.
"""

from __future__ import annotations

import re
from typing import Final

# What it is, what a text has to contain to be worth a closer look (nearly none does, and this is quick), its shape.
_SHAPES: Final = tuple(
    (name, marks, re.compile(shape))
    for name, marks, shape in (
        ("an AWS access key id", ("AKIA", "ASIA"), r"(?<![A-Z0-9])(?:AKIA|ASIA)[A-Z2-7]{16}(?![A-Z0-9])"),
        ("a JSON Web Token", ("eyJ",), r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{16,}"),
        ("a private key", ("PRIVATE KEY",), r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----"),
        (
            "a Vault or OpenBao token",
            ("s.", "b.", "r."),
            r"(?<![A-Za-z0-9])(?:hv[sbr]|s|b|r)\.[A-Za-z0-9_-]{24,}(?![A-Za-z0-9_.-])",
        ),
        ("a GitHub token", ("gh", "github_pat_"), r"(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,})"),
        ("a GitLab token", ("glpat-",), r"glpat-[A-Za-z0-9_-]{20,}"),
        ("a Slack token", ("xox",), r"xox[abeoprs]-[A-Za-z0-9-]{10,}"),
        ("a Google API key", ("AIza",), r"AIza[A-Za-z0-9_-]{35}"),
        ("a Google access token", ("ya29.",), r"ya29\.[A-Za-z0-9_-]{20,}"),
        ("a Stripe key", ("k_live_",), r"[rs]k_live_[A-Za-z0-9]{16,}"),
        ("an OpenAI or Anthropic key", ("sk-",), r"(?<![A-Za-z0-9])sk-(?:ant-|proj-)?[A-Za-z0-9_-]{32,}"),
        ("a URL with a password", ("://",), r"://[^\s/:@]{1,128}:[^\s/:@]{3,}@"),
    )
)


def secret_in(text: str) -> str | None:
    """What kind of credential ``text`` seems to hold; None if none."""
    for name, marks, shape in _SHAPES:
        for mark in marks:
            if mark in text and shape.search(text):
                return name
    return None
