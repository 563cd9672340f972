"""People's way to the broker, for the command line and for operators' scripts; ``connect.py`` makes its client.

Belongs here: the bundle the broker is believed by, and unary calls of whoever calls: a person, by a token with each
call, or operators' automation, by the SVID of the connection. A token is a bearer secret: it goes into the call's
metadata, inside TLS with a verified broker, and nowhere else. Does not belong here: where a token comes from
(``login/`` for people, ``tokens.py`` for files), what agents do (``client.py``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.message import Message

from broker.api.v1 import admin_service_pb2_grpc
from broker.client.calls import RETRY_WAITS
from broker.client.channel import OPTIONS
from broker.client.errors import from_rpc_error, is_transport
from broker.client.explain import probe_problem, server_problem
from broker.client.probe import Probe, Stage, probe, probe_server
from broker.client.svid import Material, read_pem
from broker.client.target import Target
from broker.client.tokens import TokenSource, bearer
from broker.errors import BrokerError, NotReady, Reason
from broker.identity.bundle import MAX_ROOTS, TrustBundle
from broker.identity.certificate import CertificateUnreadable, read_certificates

ADMIN_ADDRESS = "BROKER_ADMIN_ADDRESS"
ADMIN_TOKEN_FILE = "BROKER_ADMIN_TOKEN_FILE"  # noqa: S105 - names a file
ADMIN_BUNDLE = "BROKER_ADMIN_BUNDLE"

_CALL_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Believed:
    """By what the broker is believed: the roots of its trust domain; ``trust_domain`` is for people."""

    roots_pem: bytes
    trust_domain: str


def believed_by_file(bundle: Path, trust_domain: str = "") -> Believed:
    """By a file with the broker's trust bundle; empty ``trust_domain``: the one that its roots name.

    Raises :class:`InvalidInput` (CONFIG_INVALID) for a file that is no bundle of one trust domain.
    """
    pem = read_pem(bundle)
    roots = TrustBundle.from_pem(trust_domain or _named(pem), pem)
    return Believed(roots.pem, roots.trust_domain)


def _named(pem: bytes) -> str:
    try:
        uris = [uri for root in read_certificates(pem, at_most=MAX_ROOTS) for uri in root.uris]
    except CertificateUnreadable:
        uris = []
    return uris[0].removeprefix("spiffe://") if uris else "unknown"


def believed_by_workload_api(endpoint: str, trust_domain: str = "") -> Believed:
    """By what the Workload API gives; empty ``trust_domain``: that of this workload's own SVID."""
    from broker.client.workload_api import WorkloadApiSource

    source = WorkloadApiSource(
        f"unix://{endpoint}" if endpoint.startswith("/") else endpoint, trust_domain=trust_domain
    )
    try:
        bundle = source.current().bundle
    finally:
        source.close()
    return Believed(bundle.pem, bundle.trust_domain)


class AdminClient:
    """Unary calls of ``AdminService``. An asynchronous context manager; belongs to one event loop."""

    def __init__(
        self,
        target: Target,
        caller: TokenSource | Material,
        believed: Believed,
        new_id: Callable[[], str],
        fraction: Callable[[], float],
    ) -> None:
        self.new_id = new_id
        self._target = target
        self._believed = believed
        self._fraction = fraction
        self._svid = caller if isinstance(caller, Material) else None
        self._tokens = None if isinstance(caller, Material) else caller
        certified = () if self._svid is None else (self._svid.key_pem, self._svid.chain_pem)
        credentials = grpc.ssl_channel_credentials(believed.roots_pem, *certified)
        options = [*OPTIONS, ("grpc.ssl_target_name_override", target.server_name)]
        self._channel = grpc.aio.secure_channel(str(target), credentials, options=options)
        self._stub = admin_service_pb2_grpc.AdminServiceStub(self._channel)  # type: ignore[no-untyped-call]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection, and let go of where tokens come from."""
        await self._channel.close()
        if self._tokens is not None:
            self._tokens.close()

    async def call(self, rpc: str, request: Message, seconds: float = _CALL_SECONDS) -> Any:
        """The answer to ``request``. Repeated while UNAVAILABLE: each change has a request_id, and is made once.

        Raises :class:`BrokerError`: the broker's own refusal, or an explanation of why no answer came.
        """
        deadline = asyncio.get_running_loop().time() + seconds
        for wait in (*RETRY_WAITS, None):
            remaining = deadline - asyncio.get_running_loop().time()
            try:
                call = getattr(self._stub, rpc)
                metadata = await bearer(self._tokens)
                return await call(request, timeout=max(remaining, 0.001), metadata=metadata)
            except grpc.aio.AioRpcError as error:
                failure = error
            if wait is None or failure.code() is not grpc.StatusCode.UNAVAILABLE:
                break
            await asyncio.sleep(wait * (0.5 + self._fraction()))
        raise await self._explained(failure)

    def _probed(self) -> Probe:
        if self._svid is None:
            return probe_server(self._target, self._believed.roots_pem)
        return probe(self._target, self._svid)

    async def _explained(self, failure: grpc.aio.AioRpcError) -> BrokerError:
        if not is_transport(failure):
            return from_rpc_error(failure)
        seen = await asyncio.to_thread(self._probed)
        error = server_problem(self._target, self._believed.trust_domain, "the", seen, ADMIN_ADDRESS)
        if error is None and self._svid is not None:
            error = probe_problem(self._target, self._svid, seen)
        elif error is None and seen.stage is Stage.CLIENT_REFUSED:
            error = NotReady(
                Reason.BROKER_UNREACHABLE,
                f"The broker at {self._target} wants a client certificate, as it does of agents.",
                hint=f"Is {ADMIN_ADDRESS} the broker's people's port (listen.admin), and not the agents' port? "
                "Operators' automation has an SVID (--svid).",
            )
        return error or NotReady(
            Reason.BROKER_UNREACHABLE,
            f"The connection to the broker at {self._target} broke: {(failure.details() or '')[:200]}.",
            hint="Try again; the broker is reachable now.",
        )
