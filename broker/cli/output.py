"""How values are printed: JSON for programs, text for people, variables for shells.

The JSON is stable: the field names of the API in lowerCamelCase, RFC 3339 times, spans as seconds (as in
ProtoJSON). What is added later is added as new fields. Nothing here prints a secret: a
:class:`~broker.secret.Secret` has no JSON form.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import click

from broker.approval.inert import inert
from broker.client import AccessRequest, Lease

F = TypeVar("F", bound=Callable[..., Any])
# From this many failures on, ending a lease is not just slow.
_TROUBLE = 3


def format_option(*choices: str) -> Callable[[F], F]:
    """``--format``; the first choice is the default."""
    return click.option(
        "--format", "form", type=click.Choice(choices), default=choices[0], show_default=True, help="How to print it."
    )


def to_json(value: Any) -> Any:
    """``value`` (a dataclass of the SDK, or what is in one) as JSON data."""
    if is_dataclass(value) and not isinstance(value, type):
        return {camel(each.name): to_json(getattr(value, each.name)) for each in fields(value)}
    match value:
        case None | bool() | int() | str():
            return value
        case datetime():
            return moment(value)
        case timedelta():
            return f"{value.total_seconds():.9f}".rstrip("0").rstrip(".") + "s"
        case Mapping():
            return {name: to_json(each) for name, each in value.items()}
        case Sequence():
            return [to_json(each) for each in value]
    raise TypeError(f"{type(value).__name__} has no JSON form")


def camel(name: str) -> str:
    """``expire_time`` as ``expireTime``."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def moment(value: datetime) -> str:
    """RFC 3339, in UTC, with milliseconds only where there are any."""
    text = value.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace(".000", "").replace("+00:00", "Z")


def moment_ms(value: int) -> str:
    """The same, of milliseconds since the epoch."""
    return moment(datetime.fromtimestamp(value / 1000, UTC))


def clock(value: datetime | None, now: datetime) -> str:
    """The time of day of ``value``, with its date only where that is not today's."""
    if value is None:
        return "an unknown time"
    text = moment(value.replace(microsecond=0))
    return text.partition("T")[2] if value.astimezone(UTC).date() == now.astimezone(UTC).date() else text


def span(value: timedelta | None) -> str:
    """``1h30m``: a span as it can be typed again; fractions of a second are dropped."""
    seconds = int(value.total_seconds()) if value else 0
    parts = ((seconds // 3600, "h"), (seconds % 3600 // 60, "m"), (seconds % 60, "s"))
    return "".join(f"{number}{unit}" for number, unit in parts if number) or "0s"


def print_json(value: Any) -> None:
    """``value`` on standard output."""
    click.echo(json.dumps(to_json(value), indent=2, ensure_ascii=False))


def print_record(value: Any, form: str, prefix: str) -> None:
    """One dataclass: as JSON, as lines, or as ``PREFIX_FIELD=value`` for a shell's ``eval``."""
    if form == "json":
        print_json(value)
        return
    shown = {each.name: to_json(getattr(value, each.name)) for each in fields(value)}
    if form == "env":
        texts = {name: _flat(each) for name, each in shown.items()}
        click.echo(environment_lines({f"{prefix}_{name.upper()}": text for name, text in texts.items()}))
        return
    for line in _lines(shown):
        click.echo(line)


def print_shown(value: Any, form: str) -> None:
    """One dataclass of somebody else's: as JSON, or as lines in which nobody's words are more than words."""
    if form == "json":
        print_json(value)
        return
    for line in _lines({each.name: to_json(getattr(value, each.name)) for each in fields(value)}):
        click.echo(inert(line))


def _lines(shown: Mapping[str, Any]) -> Iterable[str]:
    width = max(map(len, shown))
    for name, each in shown.items():
        if each not in (None, "", [], {}):
            yield f"{name.replace('_', ' '):<{width}}  {_flat(each)}"


def environment_lines(variables: Mapping[str, str]) -> str:
    """``NAME=value`` lines, quoted for a POSIX shell where they need to be."""
    return "\n".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())


def _flat(value: Any) -> str:
    match value:
        case None:
            return ""
        case dict():
            return " ".join(f"{name}={_flat(each)}" for name, each in value.items())
        case list():
            return " ".join(map(_flat, value))
        case _:
            return str(value)


def lease_state(lease: Lease, now: datetime) -> str:
    """What is true of ``lease``, in words that promise nothing the upstream does not; and that it is an emergency's."""
    badge = lease.break_glass
    if badge is None:
        return _state(lease, now)
    return f"{_state(lease, now)}  [BREAK-GLASS by {badge.person_name}, {badge.incident}]"


def _state(lease: Lease, now: datetime) -> str:
    end = clock(lease.expire_time, now)
    match lease.state:
        case "ACTIVE":
            tightened = (
                "" if lease.policy_tightened is None else "; by the rules in force it would not be granted any more"
            )
            return f"ACTIVE until {end} at the latest{tightened}"
        case "REVOKING" if lease.only_time_ends_it:
            return f"REVOKING until {end}: only time ends this credential ({lease.contract_class})"
        case "REVOKING":
            trouble = f", {lease.revoke_failures} failures so far" if lease.revoke_failures >= _TROUBLE else ""
            return f"REVOKING: the broker tries until the upstream confirms{trouble}"
        case "REVOKED":
            return f"REVOKED at {clock(lease.end_time, now)}: the upstream confirmed"
        case "EXPIRED":
            return f"EXPIRED at {clock(lease.end_time, now)}: time ended it"
        case "VOID":
            return "VOID: never issued"
        case other:
            return other


def table(rows: Iterable[Sequence[str]], header: Sequence[str]) -> str:
    """Columns as wide as they need to be; the last one is free."""
    lines = [tuple(header), *map(tuple, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header) - 1)]
    return "\n".join(
        "  ".join([*(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=False)), line[-1]])
        for line in lines
    )


def tell_waiting(request: AccessRequest) -> None:
    """For whom it is waited now, to whoever may fetch them."""
    lacks = "; ".join(request.missing) or "people"
    note(f"access request {request.id} waits for {lacks}; who decides: broker approvals show {request.id}")


def note(text: str) -> None:
    """Something for people, on standard error. Where it goes nowhere (a terminal that is gone, a full disk), what was
    being done goes on: it may be the ending of leases.
    """
    try:
        click.echo(f"broker: {text}", err=True)
    except OSError:
        # What could not be written would be tried again when the interpreter ends, and change the exit code to 120.
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - to the end
