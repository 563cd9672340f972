"""The kinds of fields of brokerd's configuration: each a type that refuses what is not of it, with its JSON Schema.

Relative paths are relative to the file they stand in, which validation is told as ``base``.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, NamedTuple
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WithJsonSchema

from broker.audit.event import EventType
from broker.errors import Unauthenticated
from broker.files import Reference
from broker.files.public_keys import ed25519_public_key
from broker.identity.spiffe_id import SpiffeId, is_trust_domain

_HOST = re.compile(r"(?!-)[A-Za-z0-9.-]{1,253}\Z", re.ASCII)
_PLAIN_URL = re.compile(r"https?://[!-~]+\Z", re.ASCII)
_SIZE = re.compile(r"([1-9][0-9]{0,5})(KiB|MiB|GiB)\Z", re.ASCII)
_SHIFTS = {"KiB": 10, "MiB": 20, "GiB": 30}
_PORT = re.compile(r"[1-9][0-9]{0,4}\Z", re.ASCII)


class HostPort(NamedTuple):
    """Where to listen."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def _ballast(value: object) -> int | None:
    match = _SIZE.match(value) if isinstance(value, str) else None
    if match is None and value != "none":
        raise ValueError("must be a size like 64MiB (KiB, MiB, GiB), and more than zero; or none")
    return None if match is None else int(match[1]) << _SHIFTS[match[2]]


def _host_port(value: object) -> HostPort:
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    known = bool(_HOST.match(bare)) if bare == host else _is_ipv6(bare)
    if not colon or not known or not _PORT.match(port) or int(port) > 65535:
        raise ValueError("must be host:port like 127.0.0.1:8443 or [::1]:8443, with a port from 1 to 65535")
    return HostPort(bare, int(port))


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _path(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("must be a path")
    return Path(_base(info), value)


def _reference(value: str, info: ValidationInfo) -> str:
    kind, _, rest = value.partition(":")
    return f"file:{Path(_base(info), rest)}" if kind == "file" else value


def _base(info: ValidationInfo) -> Path:
    base: Path = (info.context or {})["base"]
    return base


def _trust_domain(value: str) -> str:
    if not is_trust_domain(value):
        raise ValueError("must be a trust domain: a-z 0-9 . _ -, without spiffe://")
    return value


def _endpoint(value: str) -> str:
    # SPIFFE_Workload_Endpoint.md, section 4, less tcp: anybody on the machine could come before the agent there.
    if not value.startswith("unix:///") or value.endswith("/") or set(value) & set("?#%\0"):
        raise ValueError("must be the path of a socket: unix:///run/spire/agent.sock")
    return value


def _own_id(value: str) -> str:
    try:
        SpiffeId.parse(value)
    except Unauthenticated as error:
        raise ValueError(error.message.rstrip(".")) from None
    return value


def _public_key(value: str) -> str:
    ed25519_public_key(value)
    return value


def secure_url(value: str) -> str:
    """``value``, an https URL, or http on loopback. Raises :class:`ValueError` for anything else."""
    parts = urlsplit(value)
    port = parts.port  # raises ValueError where it is none
    host = parts.hostname or ""
    if not _PLAIN_URL.match(value) or not host or port == 0:
        raise ValueError("must be a URL like https://name.example.org/path, without spaces")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ValueError("has a user, a password or a fragment, which belong in no such URL")
    loopback = HostPort(host, port or 80).loopback
    if parts.scheme != "https" and not (parts.scheme == "http" and loopback):
        raise ValueError("must be https; http only to loopback")
    return value


def _event_pattern(value: str) -> str:
    known = [each.value for each in EventType]
    if not any(each == value or (value.endswith("*") and each.startswith(value[:-1])) for each in known):
        raise ValueError(f"means no audit event; there is: {', '.join(known)}")
    return value


Address = Annotated[
    HostPort,
    BeforeValidator(_host_port),
    WithJsonSchema({"type": "string", "examples": ["127.0.0.1:8443", "[::1]:8443"]}),
]
FilePath = Annotated[Path, BeforeValidator(_path), WithJsonSchema({"type": "string", "minLength": 1})]
KeyReference = Annotated[Reference, AfterValidator(_reference)]
Ballast = Annotated[
    int | None,
    BeforeValidator(_ballast),
    WithJsonSchema({"type": "string", "pattern": "^([1-9][0-9]{0,5}(KiB|MiB|GiB)|none)$", "examples": ["64MiB"]}),
]
TrustDomain = Annotated[
    str,
    AfterValidator(_trust_domain),
    WithJsonSchema({"type": "string", "pattern": "^[a-z0-9._-]{1,255}$", "examples": ["prod.example.org"]}),
]
Endpoint = Annotated[
    str,
    AfterValidator(_endpoint),
    WithJsonSchema({"type": "string", "pattern": "^unix:///.+", "examples": ["unix:///run/spire/agent.sock"]}),
]
SecureUrl = Annotated[
    str, Field(max_length=2048), AfterValidator(secure_url), WithJsonSchema({"type": "string", "format": "uri"})
]
Audience = Annotated[str, Field(pattern=r"^[!-~]{1,255}$", examples=["jit-broker"])]
ClaimName = Annotated[str, Field(pattern=r"^[!-~]{1,255}$", examples=["groups"])]
Word = Annotated[str, Field(pattern=r"^[!-~]{1,255}$", examples=["mfa"])]
PersonIssuer = Annotated[str, Field(pattern=r"^https://[^\s#?]+$", max_length=512)]
EventPattern = Annotated[
    str,
    AfterValidator(_event_pattern),
    WithJsonSchema({"type": "string", "pattern": "^[a-z_.]*[*]?$", "examples": ["escalation.*", "lease.issued"]}),
]
DestinationName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
OwnId = Annotated[str, AfterValidator(_own_id), WithJsonSchema({"type": "string", "pattern": "^spiffe://[^/]+/.+"})]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
PersonKey = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", examples=["dana"])]
Groups = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=64)], ...], Field(strict=False)]
# Of a key that signs, and of an author: in lower case, so that Dana and dana are not two.
PERSON_NAME = r"^[a-z0-9][a-z0-9._-]{0,62}$"
KeyName = Annotated[str, Field(pattern=PERSON_NAME)]
PublicKeyPem = Annotated[str, AfterValidator(_public_key)]
