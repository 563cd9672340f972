"""What a connector of kind ``postgresql`` is told, and what its templates grant: privileges and roles, as data."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, WithJsonSchema, model_validator

from broker.deployfiles.kinds_canary import ConnectorModel
from broker.deployfiles.kinds_fields import Host, ParameterSegment, Port, SecretReference, Text, is_loopback
from broker.files import Model

_LONGEST_NAME = 63  # bytes: NAMEDATALEN - 1


class PostgresqlAddress(Model):
    """Where the database is, for the broker and for agents."""

    host: Host = Field(description="A name, an address, the directory of a unix socket, or env:NAME.")
    port: Port
    database: Text


class PostgresqlSettings(Model):
    """A PostgreSQL database, from version 16 on, whose logins the broker makes itself."""

    login: PostgresqlAddress
    username: Text = Field(description="The broker's own login: CREATEROLE, and nothing more.")
    password: SecretReference
    tls: bool = Field(True, description="verify-full. Off only for loopback and unix sockets.")
    ca_file: Text | None = Field(None, description="PEM; default: the system's roots.")
    login_prefix: Annotated[str, Field(pattern=r"^[a-z0-9_-]{0,10}$")] = Field(
        "", description="Before the attempt's id, in the names of logins."
    )

    @model_validator(mode="after")
    def _encrypted(self) -> PostgresqlSettings:
        host = self.login.host
        if not self.tls and not (host.startswith(("/", "env:")) or is_loopback(host)):
            raise ValueError("tls may be off only for loopback addresses and unix sockets")
        if not self.tls and self.ca_file is not None:
            raise ValueError("ca_file is for tls, which is off")
        return self


def _name(value: str) -> str:
    if not value.isprintable() or len(value.encode()) > _LONGEST_NAME:
        raise ValueError(f"must be at most {_LONGEST_NAME} bytes of printable text")
    return value


def _role(value: str) -> str:
    if value.startswith("pg_"):
        raise ValueError("must not be a predefined role: those reach beyond one database")
    return value


class ChosenName(ParameterSegment):
    """The name that a parameter has: an enum, so that the operator lists what it may be."""

    chooses: ClassVar[bool] = True


def _form(value: object) -> str:
    return "parameter" if isinstance(value, dict | ChosenName) else "name"


Name = Annotated[
    str, Field(min_length=1), AfterValidator(_name), WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 63})
]
RoleName = Annotated[Name, AfterValidator(_role)]
NameOrChosen = Annotated[Annotated[Name, Tag("name")] | Annotated[ChosenName, Tag("parameter")], Discriminator(_form)]
Names = Annotated[list[NameOrChosen], Field(min_length=1, max_length=64)]


class TableRights(Model):
    """Privileges on tables and views of one schema. USAGE of the schema comes with them."""

    in_schema: Name
    tables: Names
    privileges: list[Literal["select", "insert", "update", "delete", "truncate"]] = Field(min_length=1)


class SequenceRights(Model):
    """Privileges on sequences of one schema. USAGE of the schema comes with them."""

    in_schema: Name
    sequences: Names
    privileges: list[Literal["usage", "select", "update"]] = Field(min_length=1)


class SchemaRights(Model):
    """Privileges on schemas. What a login creates is dropped with it."""

    schemas: Names
    privileges: list[Literal["usage", "create"]] = Field(min_length=1)


class RoleRights(Model):
    """The privileges of roles, which the login inherits and cannot become."""

    roles: list[RoleName] = Field(min_length=1, max_length=64)


_RIGHTS = ("tables", "sequences", "schemas", "roles")


def _kind(value: object) -> str | None:
    said = value.keys() if isinstance(value, dict) else type(value).model_fields if isinstance(value, Model) else ()
    # No tag is a key of a file, so that a problem is found at the line of its field.
    return next((f"on {kind}" for kind in _RIGHTS if kind in said), None)


AnyRights = Annotated[
    Annotated[TableRights, Tag("on tables")]
    | Annotated[SequenceRights, Tag("on sequences")]
    | Annotated[SchemaRights, Tag("on schemas")]
    | Annotated[RoleRights, Tag("on roles")],
    Discriminator(
        _kind,
        custom_error_type="rights",
        custom_error_message="must grant one of tables, sequences, schemas and roles",
    ),
]


class PostgresqlGrant(Model):
    """What a login may do, and how many sessions it may have at a time."""

    grants: list[AnyRights] = Field(min_length=1, max_length=32)
    connections: int = Field(5, ge=1, le=100)


class PostgresqlConnector(ConnectorModel):
    """One entry of connectors.yaml."""

    kind: Literal["postgresql"]
    settings: PostgresqlSettings
