"""One try against a real server: only a 2xx is a delivery, and nothing of the URL is told."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from broker.audit.cloud_event import CloudEvent
from broker.clock import SystemClock
from broker.config import Webhook
from broker.errors import InvalidInput, Reason
from broker.secret import Secret
from broker.webhooks.sender import NotDelivered, Sender
from tests.clock import ManualClock
from tests.forge import authority, forge
from tests.webhooks.receiver import HANG, SECRET, Receiver

EVENT = CloudEvent("w1-1", b'{"id":"w1-1"}')


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    await made.start()
    yield made
    await made.stop()


@asynccontextmanager
async def sending(
    url: str, *, timeout: float = 30, secret: str = SECRET, ca_file: Path | None = None
) -> AsyncIterator[Sender]:
    webhook = Webhook.model_construct(
        url=url, secrets=("env:A",), events=("*",), timeout=timedelta(seconds=timeout), ca_file=ca_file
    )
    sender = Sender(webhook, lambda reference: Secret(secret), SystemClock())
    try:
        yield sender
    finally:
        await sender.close()


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_a_delivery(receiver: Receiver, status: int) -> None:
    receiver.answer(status)
    async with sending(receiver.url) as sender:
        await sender.send(EVENT)
    assert [each["id"] for each in receiver.seen] == ["w1-1"]


@pytest.mark.parametrize(
    ("status", "headers", "why", "wait"),
    [
        (500, {}, "it answered 500", None),
        (404, {}, "it answered 404", None),
        (503, {"retry_after": "7"}, "it answered 503", 7),
        (429, {"retry_after": "999999"}, "it answered 429", 3600),  # no receiver silences us for longer than an hour
        (429, {"retry_after": "-5"}, "it answered 429", None),
        (429, {"retry_after": "soon"}, "it answered 429", None),
        (301, {"location": "/elsewhere"}, "it answered 301 (redirects are not followed)", None),
        (307, {"location": "/elsewhere"}, "it answered 307 (redirects are not followed)", None),
        (308, {"location": "https://evil.example/"}, "it answered 308 (redirects are not followed)", None),
        (410, {}, "it answered 410: gone", 600),
    ],
)
async def test_every_other_answer_is_none(
    receiver: Receiver, status: int, headers: dict[str, str], why: str, wait: float | None
) -> None:
    receiver.answer(status, **headers)
    async with sending(receiver.url) as sender:
        with pytest.raises(NotDelivered) as failed:
            await sender.send(EVENT)
    assert failed.value.why == why
    assert failed.value.retry_after == (None if wait is None else timedelta(seconds=wait))
    assert (receiver.seen, receiver.elsewhere) == ([], 0)


@pytest.mark.parametrize(
    ("date", "wait"),
    [
        (lambda now: now + timedelta(seconds=90), 90),
        (lambda now: now - timedelta(seconds=90), 0),
        (lambda now: datetime(9999, 12, 31, tzinfo=UTC), 3600),
        (lambda now: "Thu, 01 May 2031 12:01:30", None),
        (lambda now: "Mon, 31 Feb 2031 12:01:30 GMT", None),
        (lambda now: "Thu, 01 May 99999999999999999999 12:01:30 GMT", None),
    ],
)
async def test_a_date_to_come_back_at(
    receiver: Receiver, date: Callable[[datetime], datetime | str], wait: float | None
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)  # the receiver looks whether it was signed just now
    told = date(now)
    receiver.answer(429, retry_after=told if isinstance(told, str) else format_datetime(told, usegmt=True))
    async with sending(receiver.url) as sender:
        sender._clock = ManualClock(now)
        with pytest.raises(NotDelivered, match="429") as failed:
            await sender.send(EVENT)
    assert failed.value.retry_after == (None if wait is None else timedelta(seconds=wait))


async def test_a_receiver_that_hangs(receiver: Receiver) -> None:
    receiver.answer(HANG)
    async with sending(receiver.url, timeout=0.2) as sender:
        with pytest.raises(NotDelivered, match="no answer in time"):
            await sender.send(EVENT)


async def test_nobody_listens(receiver: Receiver) -> None:
    await receiver.stop()
    async with sending(receiver.url) as sender:
        with pytest.raises(NotDelivered, match=r"the connection failed \(\w+\)") as failed:
            await sender.send(EVENT)
        assert "token" not in failed.value.why
        await receiver.start()
        await sender.send(EVENT)
    assert len(receiver.seen) == 1


async def test_plain_text_where_tls_is_expected(receiver: Receiver) -> None:
    async with sending(receiver.url.replace("http:", "https:")) as sender:
        with pytest.raises(NotDelivered, match="the connection failed"):
            await sender.send(EVENT)
    assert receiver.tries == 0


async def test_a_secret_that_cannot_be_read_is_tried_again_later(receiver: Receiver) -> None:
    def gone(reference: str) -> Secret:
        raise InvalidInput(Reason.CONFIG_INVALID, "file:/gone cannot be read.")

    async with sending(receiver.url) as sender:
        sender._resolve = gone
        with pytest.raises(NotDelivered, match="file:/gone cannot be read"):
            await sender.send(EVENT)
    assert receiver.tries == 0


@pytest.fixture
async def behind_tls(tmp_path: Path) -> AsyncIterator[tuple[Receiver, Path, Path]]:
    """A receiver whose certificate is a private CA's, the CA's certificate, and another CA's."""
    at = datetime.now(UTC).replace(microsecond=0)
    # By Mozilla's and OpenSSL's rules a CA for servers is a CA of no trust domain.
    own, other = (authority("", at=at, name=name, uris=()) for name in ("own", "other"))
    made = forge(issuer=own, dns=["localhost"], at=at)
    for name, data in (("own", own.pem), ("other", other.pem), ("server", made.pem + made.key_pem)):
        (tmp_path / name).write_bytes(data)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server")
    receiver = Receiver(tls=context)
    await receiver.start()
    yield receiver, tmp_path / "own", tmp_path / "other"
    await receiver.stop()


async def test_a_private_ca_is_believed_where_it_is_named(behind_tls: tuple[Receiver, Path, Path]) -> None:
    receiver, own, _ = behind_tls
    async with sending(receiver.url, ca_file=own) as sender:
        await sender.send(EVENT)
    assert [each["id"] for each in receiver.seen] == ["w1-1"]


@pytest.mark.parametrize("named", ["nothing", "another CA", "another name"])
async def test_nobody_else_is_believed(behind_tls: tuple[Receiver, Path, Path], named: str) -> None:
    receiver, own, other = behind_tls
    ca_file = {"nothing": None, "another CA": other, "another name": own}[named]
    url = receiver.url.replace("localhost", "127.0.0.1") if named == "another name" else receiver.url
    async with sending(url, ca_file=ca_file) as sender:
        with pytest.raises(NotDelivered, match="the connection failed") as failed:
            await sender.send(EVENT)
    assert "token" not in failed.value.why
    assert (receiver.tries, receiver.seen) == (0, [])
