"""The standard SPIFFE Workload API on unix sockets, one 0600 socket for each identity.

This is NO attestation. gRPC on a unix socket tells a server nothing about its peer, so a socket
simply *is* its identity: whoever may open the file is that agent. SPIRE attests; this stands in for it
on one person's machine, and speaks the same protocol, so that agents use py-spiffe unchanged.

Source: SPIFFE_Workload_API.md (sections 4 to 6) and SPIFFE_Workload_Endpoint.md (section 4, the header).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import jwt
from google.protobuf import struct_pb2
from spiffe._proto import workload_pb2 as messages
from spiffe._proto import workload_pb2_grpc

from broker.dev.files import directory_for, remove_directory
from broker.dev.trust_domain import TrustDomain
from broker.errors import Unauthenticated
from broker.identity.spiffe_id import SpiffeId

if TYPE_CHECKING:
    from broker.ports.clock import Clock

_Context = grpc.aio.ServicerContext[Any, Any]

# Deadlines a client can see coming: SPIRE's defaults are 1 h and 5 min.
X509_TTL = timedelta(hours=1)
JWT_TTL = timedelta(minutes=5)
_LONGEST_SOCKET_NAME = 64


class WorkloadApi(workload_pb2_grpc.SpiffeWorkloadAPIServicer):
    """What one identity's socket answers."""

    def __init__(
        self,
        domain: TrustDomain,
        spiffe_id: SpiffeId,
        clock: Clock,
        x509_ttl: timedelta = X509_TTL,
        dns_names: Sequence[str] = (),
    ) -> None:
        self._domain = domain
        self._dns_names = dns_names
        self._spiffe_id = spiffe_id
        self._clock = clock
        self._x509_ttl = x509_ttl
        self._rotation = asyncio.Event()
        self._closing = False

    def rotate(self) -> None:
        """Push a fresh SVID to every open stream now, instead of at half life."""
        ended, self._rotation = self._rotation, asyncio.Event()
        ended.set()

    def close(self) -> None:
        """End every open stream with UNAVAILABLE, which clients retry (a cancelled one they would give up)."""
        self._closing = True
        self.rotate()

    async def FetchX509SVID(  # noqa: N802 - the standard's name
        self, request: messages.X509SVIDRequest, context: _Context
    ) -> AsyncIterator[messages.X509SVIDResponse]:
        """A fresh X.509-SVID, and another at half of its life, for as long as the caller listens."""
        await _demand_header(context)
        async for _ in self._turns(context, self._x509_ttl / 2):
            svid = self._domain.x509_svid(
                self._spiffe_id, now=self._clock.now(), ttl=self._x509_ttl, dns_names=self._dns_names
            )
            yield messages.X509SVIDResponse(
                svids=[
                    messages.X509SVID(
                        spiffe_id=str(self._spiffe_id),
                        x509_svid=svid.certificate_der,
                        x509_svid_key=svid.key_der,
                        bundle=self._domain.bundle_der,
                    )
                ]
            )

    async def FetchX509Bundles(  # noqa: N802 - the standard's name
        self, request: messages.X509BundlesRequest, context: _Context
    ) -> AsyncIterator[messages.X509BundlesResponse]:
        """The trust domain's X.509 bundle; again at every rotation."""
        await _demand_header(context)
        async for _ in self._turns(context, None):
            yield messages.X509BundlesResponse(bundles={self._domain_id: self._domain.bundle_der})

    async def FetchJWTSVID(  # noqa: N802 - the standard's name
        self, request: messages.JWTSVIDRequest, context: _Context
    ) -> messages.JWTSVIDResponse:
        """A JWT-SVID for the audience asked. INVALID_ARGUMENT without one, PERMISSION_DENIED for another's id."""
        await _demand_header(context)
        if not request.audience or not all(request.audience):
            await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "audience must be given")
        if request.spiffe_id not in ("", str(self._spiffe_id)):
            await _refuse(context, grpc.StatusCode.PERMISSION_DENIED, f"this socket is {self._spiffe_id}'s")
        token = self._domain.jwt_svid(
            self._spiffe_id, audience=list(request.audience), now=self._clock.now(), ttl=JWT_TTL
        )
        return messages.JWTSVIDResponse(svids=[messages.JWTSVID(spiffe_id=str(self._spiffe_id), svid=token)])

    async def FetchJWTBundles(  # noqa: N802 - the standard's name
        self, request: messages.JWTBundlesRequest, context: _Context
    ) -> AsyncIterator[messages.JWTBundlesResponse]:
        """The trust domain's JWT bundle as a JWK set; again at every rotation."""
        await _demand_header(context)
        async for _ in self._turns(context, None):
            yield messages.JWTBundlesResponse(bundles={self._domain_id: json.dumps(self._domain.jwks).encode()})

    async def ValidateJWTSVID(  # noqa: N802 - the standard's name
        self, request: messages.ValidateJWTSVIDRequest, context: _Context
    ) -> messages.ValidateJWTSVIDResponse:
        """The id and claims of a valid JWT-SVID; INVALID_ARGUMENT for any other, with the reason."""
        await _demand_header(context)
        if not request.audience or not request.svid:
            await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "audience and svid must be given")
        try:
            claims = self._domain.validate_jwt_svid(request.svid, audience=request.audience, now=self._clock.now())
        except (jwt.InvalidTokenError, Unauthenticated) as error:
            await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, f"the JWT-SVID is not valid: {error}")
        struct = struct_pb2.Struct()
        struct.update(claims)
        return messages.ValidateJWTSVIDResponse(spiffe_id=claims["sub"], claims=struct)

    @property
    def _domain_id(self) -> str:
        return f"spiffe://{self._domain.name}"

    async def _turns(self, context: _Context, every: timedelta | None) -> AsyncIterator[None]:
        """Once at once, then at every rotation and every ``every``; UNAVAILABLE when the server closes."""
        while not self._closing:
            rotation = self._rotation  # taken before the answer is made: a rotation meanwhile is not missed
            yield
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every.total_seconds() if every else None):
                    await rotation.wait()
        await _refuse(context, grpc.StatusCode.UNAVAILABLE, "the development Workload API is closing")


class WorkloadApiSockets:
    """The Workload API of each identity in ``ids``, on its own socket in ``directory``.

    ``dns_names`` are for those that are servers, which TLS clients find by name.
    """

    def __init__(
        self,
        domain: TrustDomain,
        ids: Iterable[SpiffeId],
        directory: Path,
        clock: Clock,
        x509_ttl: timedelta = X509_TTL,
        dns_names: Mapping[SpiffeId, Sequence[str]] | None = None,
    ) -> None:
        names = dns_names or {}
        self._apis = {
            spiffe_id: WorkloadApi(domain, spiffe_id, clock, x509_ttl, names.get(spiffe_id, ())) for spiffe_id in ids
        }
        self._directory = directory
        self._servers: list[grpc.aio.Server] = []
        self.sockets: dict[SpiffeId, Path] = {}

    def endpoint(self, spiffe_id: SpiffeId) -> str:
        """What goes into ``SPIFFE_ENDPOINT_SOCKET`` for this identity."""
        return f"unix://{self.sockets[spiffe_id]}"

    def rotate(self, spiffe_id: SpiffeId) -> None:
        """Push a fresh SVID to whoever listens as ``spiffe_id``."""
        self._apis[spiffe_id].rotate()

    async def start(self) -> None:
        """Bind every socket; stale ones of an earlier run are replaced."""
        names = {spiffe_id: _socket_name(spiffe_id) for spiffe_id in self._apis}
        longest = max(map(len, names.values()), default=0)
        directory = directory_for(os.geteuid(), os.getegid(), self._directory, longest_name=longest)
        for spiffe_id, api in self._apis.items():
            socket = directory / names[spiffe_id]
            socket.unlink(missing_ok=True)
            server = grpc.aio.server()
            workload_pb2_grpc.add_SpiffeWorkloadAPIServicer_to_server(api, server)  # type: ignore[no-untyped-call]
            server.add_insecure_port(f"unix:{socket}")
            await server.start()
            # The directory is 0700 already, so nobody else could have come before this.
            socket.chmod(0o600)
            self._servers.append(server)
            self.sockets[spiffe_id] = socket

    async def stop(self) -> None:
        """End every stream so that clients retry, then remove the sockets; they come back at the same paths."""
        for api in self._apis.values():
            api.close()
        await asyncio.gather(*(server.stop(grace=1.0) for server in self._servers))
        self._servers.clear()
        for socket in self.sockets.values():
            socket.unlink(missing_ok=True)
        self.sockets.clear()

    async def destroy(self) -> None:
        """Stop, and remove the directory: agents that wait for the sockets' return wait in vain."""
        await self.stop()
        remove_directory(self._directory)


async def _demand_header(context: _Context) -> None:
    """Every call carries ``workload.spiffe.io: true``, which a browser or a proxied request cannot be made to send."""
    if ("workload.spiffe.io", "true") not in (context.invocation_metadata() or ()):
        await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "security header missing from request")


async def _refuse(context: _Context, code: grpc.StatusCode, why: str) -> NoReturn:
    await context.abort(code, why)
    raise AssertionError("abort() returned")


def _socket_name(spiffe_id: SpiffeId) -> str:
    """The id's path with ``+`` (no character of an id) for ``/``; a long one is cut and told apart by a digest."""
    name = spiffe_id.path.removeprefix("/").replace("/", "+")
    if len(name) > _LONGEST_SOCKET_NAME - len(".sock"):
        name = f"{name[:40]}+{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return f"{name}.sock"
