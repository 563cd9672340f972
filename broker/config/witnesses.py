"""The shape of the configuration's part about checkpoints and their witnesses."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from broker.config.fields import Address, DestinationName, FilePath, KeyReference, SecureUrl
from broker.files import Duration, Model

_Timeout = Field(timedelta(seconds=10), description="Of one try.")


class S3Witness(Model):
    """A bucket with object lock, of S3 or of what speaks its protocol."""

    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
    prefix: Annotated[str, Field(pattern=r"^([A-Za-z0-9._-]+/)*$", max_length=512)] = Field(
        "", description="Before each object's name; ends in /. One broker's alone."
    )
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")] = "us-east-1"
    endpoint_url: SecureUrl | None = Field(None, description="Of what is not AWS. https, or http on loopback.")
    access_key_id: KeyReference | None = Field(None, description="Absent: the SDK's own credential chain.")
    secret_access_key: KeyReference | None = None
    retention: Duration = Field(timedelta(days=400), description="For so long each checkpoint is locked.")
    mode: Literal["COMPLIANCE", "GOVERNANCE"] = "COMPLIANCE"
    timeout: Duration = _Timeout


class HttpWitness(Model):
    """A web service that keeps what is posted to it."""

    url: SecureUrl = Field(description="https, or http on loopback.")
    token: KeyReference | None = Field(None, description="Sent as a bearer token.")
    timeout: Duration = _Timeout
    ca_file: FilePath | None = Field(None, description="CA certificates (PEM) to believe instead of the system's.")


class SyslogWitness(Model):
    """A collector of RFC 5424 messages."""

    address: Address
    tls: bool = Field(True, description="Without, on loopback only.")
    timeout: Duration = _Timeout
    ca_file: FilePath | None = Field(None, description="CA certificates (PEM) to believe instead of the system's.")


class WitnessSettings(Model):
    """One witness: exactly one of these."""

    file: FilePath | None = Field(None, description="Appended to; not in the state directory.")
    s3: S3Witness | None = None
    http: HttpWitness | None = None
    syslog: SyslogWitness | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """Which of them are set."""
        return tuple(name for name in ("file", "s3", "http", "syslog") if getattr(self, name) is not None)


class Checkpoints(Model):
    """Signatures over the audit trail, and who is sent them. Without, an auditor has to believe brokerd."""

    signing_keys: tuple[KeyReference, ...] = Field(
        min_length=1, max_length=4, strict=False, description="Ed25519 private keys in PEM; each signs."
    )
    origin: Annotated[str, Field(pattern=r"^[!-*,-~]{1,255}$")] | None = Field(
        None, description="The log's name in them. [default: TRUST_DOMAIN/jit-broker/TENANT]"
    )
    every: Duration = Field(timedelta(minutes=1), description="While something happens.")
    every_records: Annotated[int, Field(ge=1, le=10_000)] = 10_000
    witnesses: dict[DestinationName, WitnessSettings] = Field(default_factory=dict, description="By name.")
