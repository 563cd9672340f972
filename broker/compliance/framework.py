"""The frameworks: what of each control is served here, what shows it, and what is not covered.

The files in ``frameworks/`` are the one source of it: ``docs/compliance.md`` is drawn from them, and
``broker audit evidence`` collects by them. Belongs here: reading them, and which records of the trail are evidence.
Not here: the frameworks' own texts, of which only ids and short names are quoted.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from broker.audit.event import EventType
from broker.errors import InvalidInput, Reason

_FILES = files("broker.compliance") / "frameworks"
_SUFFIX = ".toml"


@dataclass(frozen=True, slots=True)
class Control:
    """One control, category, risk or layer. ``served`` is empty where nothing here serves it.

    ``commands`` show the evidence, with words in capitals for what the reader fills in. ``events`` are types of the
    trail's records, or families of them with their dot (``lease.``).
    """

    id: str
    name: str
    served: str
    commands: tuple[str, ...]
    events: tuple[str, ...]
    not_covered: str

    def evidence(self, type_: str) -> bool:
        """Whether records of this type are evidence for it."""
        return any(type_ == each or (each.endswith(".") and type_.startswith(each)) for each in self.events)


@dataclass(frozen=True, slots=True)
class Framework:
    """One framework in one edition; ``extent`` says how much of it is here."""

    key: str
    name: str
    edition: str
    source: str
    extent: str
    controls: tuple[Control, ...]

    @property
    def event_types(self) -> tuple[EventType, ...]:
        """Every type that is evidence for one of its controls."""
        return tuple(each for each in EventType if any(control.evidence(each) for control in self.controls))


def names() -> tuple[str, ...]:
    """What the frameworks are called on the command line, sorted."""
    found = (each.name for each in _FILES.iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in found if name.endswith(_SUFFIX)))


def framework(key: str) -> Framework:
    """The framework of this key. Raises :class:`InvalidInput` (CONFIG_INVALID) for one that is not here."""
    known = names()
    if key not in known:
        raise InvalidInput(
            Reason.CONFIG_INVALID,
            f"there is no framework {key!a}.",
            hint=f"There is: {', '.join(known)}.",
            metadata={"framework": ascii(key)},
        )
    told = tomllib.loads((_FILES / f"{key}{_SUFFIX}").read_text(encoding="utf-8"))
    controls = tuple(_control(each) for each in told.pop("controls"))
    return Framework(key=key, controls=controls, **told)


def _control(told: dict[str, Any]) -> Control:
    return Control(commands=tuple(told.pop("commands", ())), events=tuple(told.pop("events", ())), **told)
