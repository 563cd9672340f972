"""One try against a real server: only a 2xx is a delivery, and nothing of the URL is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from broker.audit.cloud_event import CloudEvent
from broker.clock import SystemClock
from broker.config import Webhook
from broker.errors import InvalidInput, Reason
from broker.secret import Secret
from broker.webhooks.sender import NotDelivered, Sender
from tests.webhooks.receiver import HANG, SECRET, Receiver

EVENT = CloudEvent("w1-1", b'{"id":"w1-1"}')


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    await made.start()
    yield made
    await made.stop()


@asynccontextmanager
async def sending(url: str, *, timeout: float = 30, secret: str = SECRET) -> AsyncIterator[Sender]:
    webhook = Webhook.model_construct(
        url=url, secrets=("env:A",), events=("*",), timeout=timedelta(seconds=timeout), ca_file=None
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
