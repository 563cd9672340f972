"""Draw what docs/ says about the code from the code itself; ``make docs`` runs it.

Made here: in ``architecture.md`` the layers of the house (from the contract in ``pyproject.toml``) and the
diagram of the attempt machine (from ``broker/lease/machine.py``); in ``approvals.md`` that of the request machine
(from ``broker/approval/machine.py``); the whole of ``reasons.md`` (from
``broker/errors.py``, ``broker/api/errors.py`` and what ``reasons.toml`` says to operators and agents); the whole of
``compliance.md`` (from ``broker/compliance/frameworks/``); the whole of ``reliability.md`` (from ``reliability.toml``).
With ``--check`` nothing is written: it exits 1 if what is committed is not what would be made.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from broker import errors
from broker.api.errors import STATUS
from broker.approval import machine as request_machine
from broker.approval.machine import RequestState
from broker.compliance import framework as compliance
from broker.errors import Reason
from broker.lease.machine import TERMINAL, TRANSITIONS, State

DOCS = Path(__file__).resolve().parent
_FAMILY = re.compile(r"\(family (\w+)\)\.$")
_MEMBER = re.compile(r"    ([A-Z][A-Z0-9_]*) = ")


def house() -> str:
    """The layers contract, from the top."""
    contracts = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    return "\n".join(["```text", *(layer.replace(" | ", "  ") for layer in layers), "```", ""])


def lease_diagram() -> str:
    """The attempt machine as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.ISSUING}"]
    lines += [f"    {state} --> {following}: {event}" for (state, event), following in TRANSITIONS.items()]
    lines += [f"    {state} --> [*]" for state in State if state in TERMINAL]
    return "\n".join(["```mermaid", *lines, "```", ""])


def request_diagram() -> str:
    """The request machine as a Mermaid state diagram."""
    ways = request_machine.TRANSITIONS.items()
    lines = ["stateDiagram-v2", f"    [*] --> {RequestState.AWAITING_APPROVAL}"]
    lines += [f"    {state} --> {following}: {event}" for (state, event), following in ways]
    lines += [f"    {state} --> [*]" for state in RequestState if state in request_machine.OVER]
    return "\n".join(["```mermaid", *lines, "```", ""])


def families() -> Iterator[tuple[Reason, type[errors.BrokerError], str]]:
    """(reason, its family, what its section is about), in the order of ``broker/errors.py``.

    The sections of :class:`Reason` are comments; a reason that stands in none is an error here.
    """
    source = Path(errors.__file__).read_text().partition("class Reason(")[2].partition("\nclass ")[0]
    family: type[errors.BrokerError] | None = None
    about = ""
    for line in source.splitlines():
        comment = line.strip()
        if comment.startswith("# ") and (named := _FAMILY.search(comment)):
            family, about = getattr(errors, named[1]), comment[2 : named.start()].strip()
        elif (member := _MEMBER.match(line)) and family is not None:
            yield Reason(member[1]), family, about


def reasons_page() -> str:
    """``reasons.md``. Raises KeyError for a reason without its two sentences, or sentences without a reason."""
    told = tomllib.loads((DOCS / "reasons.toml").read_text())
    found = list(families())
    if unknown := sorted(set(told) - {reason for reason, _, _ in found}):
        raise KeyError(f"docs/reasons.toml tells of {', '.join(unknown)}, which broker/errors.py does not have")
    if missing := sorted({reason for reason, _, _ in found} - set(told)):
        raise KeyError(f"docs/reasons.toml does not tell of {', '.join(missing)}")
    lines = [
        "# Reasons",
        "",
        "<!-- Made by `make docs` from broker/errors.py and docs/reasons.toml; do not edit. -->",
        "",
        "Every refusal and failure carries exactly one `ErrorInfo` (AIP-193) with one of these reasons, and the domain",
        f"`{errors.ERROR_DOMAIN}`. Programs may depend on reasons; messages are for people and change.",
        "A `hint` in the metadata says what to do next; every variable part of a message stands in the metadata too.",
        "",
        "| family | gRPC status | means |",
        "|---|---|---|",
    ]
    for family, status in STATUS.items():
        lines.append(f"| `{family.__name__}` | `{status.name}` | {(family.__doc__ or '').splitlines()[0]} |")
    section = ""
    for reason, family, about in found:
        if about != section:
            section = about
            lines += ["", f"## {about}", "", "| reason | family | what it means | what to do |", "|---|---|---|---|"]
        lines.append(f"| `{reason}` | `{family.__name__}` | {told[reason]['means']} | {told[reason]['do']} |")
    return "\n".join([*lines, ""])


def compliance_page() -> str:
    """``compliance.md``: each framework, control by control."""
    lines = [
        "# Compliance",
        "",
        "<!-- Made by `make docs` from broker/compliance/frameworks/; do not edit. -->",
        "",
        "What of published frameworks the broker serves, what shows it, and what it does *not* cover. Only ids and",
        "short names are the frameworks' own. A control that is served here in part is not thereby met: that is for",
        "whoever assesses the whole organisation. Words in capitals are yours to fill in.",
        "",
        "`broker audit evidence --framework NAME --since 90d --database FILE --output DIR` makes a package of the",
        "records that the trail has for one framework ([evidence](access-reviews.md#evidence)). Event types that end",
        "in a dot stand for all of their family.",
        "",
    ]
    found = [compliance.framework(key) for key in compliance.names()]
    lines += [f"- [{each.name} {each.edition}](#{_anchor(each)}), `{each.key}`" for each in found]
    for each in found:
        lines += ["", f"## {each.name} {each.edition}", "", f"{each.extent} Source: <{each.source}>.", ""]
        lines += ["| control | what serves it here | what shows it | evidence | not covered |", "|---|---|---|---|---|"]
        lines += [_control(control) for control in each.controls]
    return "\n".join([*lines, ""])


def _anchor(framework: compliance.Framework) -> str:
    return re.sub(r"[^\w\- ]", "", f"{framework.name} {framework.edition}".lower()).replace(" ", "-")


def _control(control: compliance.Control) -> str:
    commands, events = ("<br>".join(f"`{each}`" for each in many) for many in (control.commands, control.events))
    served = control.served or "**Nothing here.**"
    return f"| {control.id} {control.name} | {served} | {commands} | {events} | {control.not_covered} |"


def reliability_page() -> str:
    """``reliability.md``: what can go wrong, row by row, and the tests that prove what happens then."""
    told = tomllib.loads((DOCS / "reliability.toml").read_text())
    lines = [
        "# Reliability",
        "",
        "<!-- Made by `make docs` from docs/reliability.toml; do not edit. -->",
        "",
        "What can go wrong between *request accepted* and *credential revoked*, what has to happen then, and the tests",
        "that prove it. A row without a test keeps CI red. What is deliberately not met says so, and why.",
        "",
        "`make test` runs most of these, `make test-slow` those that take long, `make simulate` everything at once on",
        "simulated time ([simulation.md](simulation.md)), `make integration` those that need other people's servers.",
        "",
        "## Faults",
        "",
        "| row | what goes wrong | what has to happen | proved by |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row} | {each['what']} | {each['must']}{_weaker(each)} | {_proofs(each['tests'])} |"
        for row, each in told["faults"].items()
    ]
    lines += ["", "## Invariants", "", "| row | what always holds | proved by |", "|---|---|---|"]
    lines += [
        f"| {row} | {each['what']}{_weaker(each)} | {_proofs(each['tests'])} |"
        for row, each in told["invariants"].items()
    ]
    return "\n".join([*lines, ""])


def _weaker(row: dict[str, str]) -> str:
    why = f" ([decision](decisions/{row['decision']}.md))" if "decision" in row else ""
    return f". **Weaker here:** {row['weaker']}{why}" if "weaker" in row else why


def _proofs(tests: list[str]) -> str:
    parts = (test.partition("::") for test in tests)
    return "<br>".join(f"[{name or Path(file).stem}](../{file})" for file, _, name in parts)


# What stands between <!-- NAME: make docs --> and <!-- end -->, by page.
_DRAWN = {
    "architecture.md": {"house": house, "lease-diagram": lease_diagram},
    "approvals.md": {"request-diagram": request_diagram},
}


def pages() -> dict[Path, str]:
    """Every page that is made, wholly or in part, as it should be."""
    made = {
        DOCS / "reasons.md": reasons_page(),
        DOCS / "compliance.md": compliance_page(),
        DOCS / "reliability.md": reliability_page(),
    }
    return {**{DOCS / name: _drawn(name) for name in _DRAWN}, **made}


def _drawn(page: str) -> str:
    text = (DOCS / page).read_text()
    for name, draw in _DRAWN[page].items():
        begin, end = f"<!-- {name}: make docs -->\n", "<!-- end -->"
        if text.count(begin) != 1:
            raise ValueError(f"docs/{page} must have the marker {begin.strip()} once")
        head, _, rest = text.partition(begin)
        text = head + begin + draw() + end + rest.partition(end)[2]
    return text


def main() -> int:
    """Write, or check with ``--check``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 if a committed page is stale")
    check = parser.parse_args().check
    stale = [(path, text) for path, text in pages().items() if not path.exists() or path.read_text() != text]
    for path, text in stale:
        if check:
            sys.stderr.write(f"docs/{path.name}: not what the code says; run `make docs`\n")
        else:
            path.write_text(text)
    return 1 if check and stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
