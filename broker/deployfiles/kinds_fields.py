"""Fields that several kinds of connectors have in their settings or grants, each with what it may hold."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, WithJsonSchema

from broker.files import Model, Reference

_ENV = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*\Z", re.ASCII)


def _url(value: str) -> str:
    if _ENV.match(value):
        return value
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError("must be https://host[:port] or env:NAME")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError("must be https: plain http is for loopback only")
    return value


def _host(value: str) -> str:
    name = re.fullmatch(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?", value, re.ASCII)
    socket_directory = value.startswith("/") and value.isprintable() and len(value) <= 100
    if not (_ENV.match(value) or name or socket_directory):
        try:
            ipaddress.ip_address(value)
        except ValueError:
            raise ValueError("must be a host's name, an address, the directory of a unix socket, or env:NAME") from None
    return value


def is_loopback(host: str) -> bool:
    """Whether it is a loopback address, or localhost."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _port(value: object) -> object:
    if isinstance(value, str) and _ENV.match(value):
        return value
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535:
        raise ValueError("must be a port from 1 to 65535, or env:NAME")
    return value


def _absolute(value: str) -> str:
    # A deploy set may be swapped, so nothing in it is relative to where it lies.
    if value.startswith("file:") and not value.startswith("file:/"):
        raise ValueError("must name an absolute path: file:/...")
    return value


Url = Annotated[str, AfterValidator(_url), WithJsonSchema({"type": "string", "pattern": "^(https?://|env:)"})]
Host = Annotated[str, Field(min_length=1, max_length=253), AfterValidator(_host)]
Port = Annotated[
    int | str,
    BeforeValidator(_port),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1, "maximum": 65535}, {"pattern": "^env:"}]}),
]
SecretReference = Annotated[Reference, AfterValidator(_absolute)]
Text = Annotated[str, Field(min_length=1, max_length=1024)]
PathPart = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class ParameterSegment(Model):
    """The value of a parameter that the template declares."""

    # Whether it alone chooses a thing upstream, wherever in the grant it stands: then an enum must list which.
    chooses: ClassVar[bool] = False
    parameter: Text


def name_or_parameter(value: object) -> str:
    """Which of the two a field holds: the discriminator of such unions."""
    return "parameter" if isinstance(value, dict | ParameterSegment) else "name"


# A name that the template says, or the one that a parameter has.
NameOrParameter = Annotated[
    Annotated[PathPart, Tag("name")] | Annotated[ParameterSegment, Tag("parameter")], Discriminator(name_or_parameter)
]
