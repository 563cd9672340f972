"""One logical connection to the broker that follows our SVID as it rotates.

Belongs here: making a channel for a :class:`Material`, and replacing it without a failed call: the new
channel is made, waited for and swapped in; the old one is closed when the last call on it has ended.
(gRPC's client certificates are fixed per channel, and closing a channel with calls on it raises
``CancelledError`` in their callers.) Streams have no natural end: they watch ``Generation.retired`` and
move over themselves. Does not belong here: what is called (``calls.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from datetime import datetime

import grpc

from broker.api.v1 import broker_service_pb2_grpc
from broker.client.svid import Material, SvidSource
from broker.client.target import Target
from broker.client.tokens import TokenSource
from broker.errors import BrokerError, Reason, Unauthenticated

MAX_ANSWER_BYTES = 4 * 1024 * 1024
READY_SECONDS = 10.0
CLOSE_GRACE_SECONDS = 1.0
# An expired SVID is asked for anew before each call, but no more often than this.
RENEW_SECONDS = 1.0

OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
    # Proxies of the environment are for the web; TLS to the broker ends at the broker.
    ("grpc.enable_http_proxy", 0),
    # Retries are ours (calls.py); nobody changes our calls by a DNS TXT record.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    # Of several addresses of one name not all clients the first one.
    ("grpc.service_config", '{"loadBalancingConfig": [{"pick_first": {"shuffleAddressList": true}}]}'),
    # A new SVID means a new handshake, never a connection shared with an older channel.
    ("grpc.use_local_subchannel_pool", 1),
    # A broker that restarts is found again in a moment. The second is the limit of one connection attempt.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # A connection that died silently is noticed; the broker permits a ping each 10 s.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)

_log = logging.getLogger("broker.client")


class Generation:
    """One channel with the SVID it was made with. ``retired`` is set once a newer one is in use."""

    def __init__(self, material: Material, target: Target) -> None:
        credentials = grpc.ssl_channel_credentials(material.bundle.pem, material.key_pem, material.chain_pem)
        options = [*OPTIONS, ("grpc.ssl_target_name_override", target.server_name)]
        self.material = material
        self.channel = grpc.aio.secure_channel(str(target), credentials, options=options)
        self.stub = broker_service_pb2_grpc.BrokerServiceStub(self.channel)  # type: ignore[no-untyped-call]
        self.retired = asyncio.Event()
        self.users = 0

    @property
    def connected(self) -> bool:
        """Whether a connection is up at this moment."""
        return self.channel.get_state() is grpc.ChannelConnectivity.READY

    async def ready(self) -> bool:
        """Whether the handshake succeeded within ``READY_SECONDS``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_SECONDS):
                await self.channel.channel_ready()
                return True
        return False

    async def release(self) -> None:
        """One call less; the last one of a retired channel closes it."""
        self.users -= 1
        await self.close_if_unused()

    async def close_if_unused(self) -> None:
        """Close, unless somebody still needs it."""
        if self.retired.is_set() and self.users == 0:
            await self.channel.close()


class Connection:
    """The current :class:`Generation`, kept current. Belongs to the event loop that opened it."""

    def __init__(
        self, source: SvidSource, target: Target, now: Callable[[], datetime], tokens: TokenSource | None = None
    ) -> None:
        self.source = source
        self.target = target
        self.now = now
        self.tokens = tokens  # None: the broker itself is at the target
        self._current: Generation | None = None
        self._opening = asyncio.Lock()
        self._changed = asyncio.Event()
        self._follower: asyncio.Task[None] | None = None
        self._subscribed = False
        self._renewed_at: float | None = None
        self._closed = False
        self.renewal_error: BrokerError | None = None  # why the last look for a newer SVID failed

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator[Generation]:
        """The channel to make one call on. It stays open for as long as this context is."""
        generation = await self.renewed(self._current or await self._open())
        if self._current is None:
            generation = await self._open()  # withdrawn meanwhile; says why, or finds it given again
        self._check_open()
        generation.users += 1
        try:
            yield generation
        finally:
            await generation.release()

    async def renewed(self, generation: Generation) -> Generation:
        """The channel to use in place of ``generation``: itself, unless there is a newer one or its SVID is over.

        In the latter case the source is asked now, because a call that begins with an expired SVID is a
        call lost. Never raises for what the source does; see ``renewal_error``.
        """
        if not self._lapsed(generation):
            return self._current or generation
        async with self._opening:
            if self._lapsed(generation):
                self._renewed_at = asyncio.get_running_loop().time()
                material = await self._look()
                if material is not None and material.digest != generation.material.digest and not self._closed:
                    await self._swap(generation, Generation(material, self.target))
            return self._current or generation

    async def anew(self, generation: Generation) -> None:
        """Have another channel, with the same SVID, in place of ``generation``, by which nothing is to be had.

        Behind a balancer, or where one name has several addresses, it may come to another broker.
        """
        async with self._opening:
            if self._current is generation and not self._closed:
                await self._swap(generation, Generation(generation.material, self.target))

    def _lapsed(self, generation: Generation) -> bool:
        if self._current is not generation or generation.material.valid_at(self.now()):
            return False
        return self._renewed_at is None or asyncio.get_running_loop().time() >= self._renewed_at + RENEW_SECONDS

    @property
    def material(self) -> Material | None:
        """The SVID in use; None before the first call."""
        return self._current.material if self._current else None

    async def close(self) -> None:
        """Close at once; calls in flight get a moment to end."""
        self._closed = True
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)
        if self._current is not None:
            await self._current.channel.close(CLOSE_GRACE_SECONDS)
        await asyncio.to_thread(self.source.close)
        if self.tokens is not None:
            await asyncio.to_thread(self.tokens.close)

    async def _open(self) -> Generation:
        async with self._opening:
            self._check_open()
            if self._current is None:
                if not self._subscribed:
                    # Before the first look, so that no push falls between the two.
                    loop = asyncio.get_running_loop()
                    self.source.subscribe(lambda: _wake(loop, self._changed))
                    self._subscribed = True
                material = await asyncio.to_thread(self.source.current)
                self._check_open()
                self._current = Generation(material, self.target)
                if self._follower is None:
                    self._follower = asyncio.create_task(self._follow(), name="broker.client: follow the SVID")
            return self._current

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.source.poll_seconds):
                    await self._changed.wait()
            self._changed.clear()
            material = await self._look()
            if material is not None:
                await self._take(material)

    async def _look(self) -> Material | None:
        """What the source has now; None if it fails: what we have goes on working until it expires."""
        try:
            material = await asyncio.to_thread(self.source.current)
        except BrokerError as error:
            self.renewal_error = error
        except Exception as error:  # noqa: BLE001 - whatever a library raises, to follow must not end by it
            detail = f"The source of our SVID failed: {type(error).__name__}."
            self.renewal_error = Unauthenticated(Reason.SVID_MISSING, detail, hint="Is the SPIFFE agent running?")
        else:
            self.renewal_error = None
            return material
        _log.warning("the SVID could not be renewed: %s", self.renewal_error)
        if self.renewal_error.reason is Reason.BROKER_BUNDLE_MISSING:
            await self._withdraw()
        return None

    async def _withdraw(self) -> None:
        """The broker's trust domain is not to be believed any more: what is absent was taken away.

        (SPIFFE_Workload_API.md, section 4.4. What is there and cannot be read is a mistake, and withdraws nothing.)
        """
        old, self._current = self._current, None
        if old is not None:
            old.retired.set()
            await old.close_if_unused()

    async def _take(self, material: Material) -> None:
        old = self._current
        if old is None or old.material.digest == material.digest:
            return
        new = Generation(material, self.target)
        if not _roots(old.material) <= _roots(material):
            # Whoever shows a root that was taken out is not the broker, whether or not the broker answers now.
            await self._swap(old, new)
            return
        try:
            ready = await new.ready()
        except BaseException:
            await new.channel.close()
            raise
        if self._current is not old or (not ready and old.material.valid_at(self.now())):
            # A call has renewed it meanwhile; or the old one may well be connected still. The next turn looks again.
            await new.channel.close()
            self._changed.set()
            return
        await self._swap(old, new)

    async def _swap(self, old: Generation, new: Generation) -> None:
        self._current = new
        old.retired.set()
        await old.close_if_unused()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("this client is closed")


def _roots(material: Material) -> frozenset[str]:
    return frozenset(root.fingerprint for root in material.bundle.roots)


def _wake(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    # The loop may have ended while the other thread was calling.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(event.set)
