"""How a command is handed its credential: variables, files that variables name, or an endpoint that they name.

Each form is a context: what it needs is there inside it, and gone after it. Which forms there are, and what fits what,
is ``broker/client/forms.py``.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from broker.cli.private_files import PrivateDirectory
from broker.client import Grant
from broker.client.container import ContainerEndpoint
from broker.client.delivery import cleared, inherited
from broker.client.forms import SERVICE, Form, beside_keys, kubeconfig, pgpass, service_file, token_of
from broker.client.renewing import TaskCredential
from broker.secret import Secret


@asynccontextmanager
async def handed(
    form: Form,
    grant: Grant,
    source: TaskCredential,
    surroundings: Mapping[str, str],
    place: PrivateDirectory | None,
) -> AsyncIterator[Mapping[str, str]]:
    """The environment for a command. ``place`` is needed by every form but the first. Raises OSError."""
    if place is None:
        yield inherited(surroundings, grant.credential)
        return
    kept = cleared(surroundings, grant.credential)
    match form:
        case Form.CONTAINER:
            async with serving(grant, source, place) as variables:
                yield kept | variables
        case Form.PGPASS:
            yield kept | libpq_files(grant, place)
        case Form.KUBECONFIG:
            yield kept | {"KUBECONFIG": str(place.put("kubeconfig", kubeconfig(grant.kubernetes)))}
        case _:
            yield kept | token_file(grant, place)


@asynccontextmanager
async def serving(
    grant: Grant, source: TaskCredential, place: PrivateDirectory, port: int = 0
) -> AsyncIterator[dict[str, str]]:
    """The variables that lead AWS SDKs to an endpoint of ours, which serves inside the block. Raises OSError."""
    token = Secret(secrets.token_urlsafe(32))
    # No newline at its end: botocore refuses it as a header.
    path = place.put("authorization-token", token.reveal())
    async with ContainerEndpoint(source.current, token, port) as endpoint:
        yield {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": endpoint.uri,
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(path),
            # SDKs ask an endpoint last: a profile of the user's own would come before it.
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_CONFIG_FILE": os.devnull,
            **beside_keys(grant.aws),
        }


def libpq_files(grant: Grant, place: PrivateDirectory) -> dict[str, str]:
    """The variables that lead libpq to a password file and a service file of ours. Raises OSError."""
    login = grant.database
    return {
        "PGPASSFILE": str(place.put("pgpass", pgpass(login))),
        "PGSERVICEFILE": str(place.put("pg_service.conf", service_file(login))),
        "PGSERVICE": SERVICE,
    }


def token_file(grant: Grant, place: PrivateDirectory) -> dict[str, str]:
    """The variable that names a file with the token and nothing else. Raises OSError, TypeError."""
    token = token_of(grant.credential)
    if token is None:
        raise TypeError(f"a {type(grant.credential).__name__} is no token")
    return {"BROKER_TOKEN_FILE": str(place.put("token", token.reveal()))}
