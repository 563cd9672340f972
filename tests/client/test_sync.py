"""The SDK for scripts is the asynchronous one, waiting."""

from __future__ import annotations

import contextlib
import inspect
import signal
import threading
from collections.abc import Iterator

import pytest

import broker.client.sync
from broker.api.v1 import lease_pb2
from broker.client import AsyncClient
from broker.client.task import Task as AsyncTask
from broker.errors import Denied, Reason
from tests.client.fake_broker import FakeBroker, SvidFiles


@pytest.fixture
def client(fake: FakeBroker, files: SvidFiles) -> Iterator[broker.client.sync.Client]:
    with broker.client.sync.connect(
        fake.address, certificate=files.certificate, key=files.key, bundle=files.bundle
    ) as connected:
        yield connected


def test_a_task_from_a_script(client: broker.client.sync.Client, fake: FakeBroker) -> None:
    with client.task("script", hold=True) as task:
        grant = task.request("orders-readonly", account="shop", environment="dev", resource="orders", ttl="5m")
        assert grant.environment()["PGPASSWORD"] == fake.secrets[0]
        assert fake.held == [task.id]
    assert [lease.state for lease in client.leases(task_id=task.id)] == ["REVOKED"]
    assert task.outcome is not None
    assert not client.get_task(task.id).is_open


def test_a_refusal_is_the_same_exception(client: broker.client.sync.Client, fake: FakeBroker) -> None:
    fake.faults["WhoAmI"] = [Denied(Reason.AGENT_NOT_REGISTERED, "Who?")]
    with pytest.raises(Denied, match="Who"):
        client.whoami()


def test_watching_is_an_iterator(client: broker.client.sync.Client, fake: FakeBroker) -> None:
    for number in range(3):
        fake.emit(f"lease.changed-{number}", lease_pb2.Lease(id="l"))
    events = client.watch(after_sequence=1)
    assert [next(events).sequence, next(events).sequence] == [2, 3]
    events.close()  # type: ignore[attr-defined]


def test_an_interrupt_completes_the_task_before_it_is_raised(
    client: broker.client.sync.Client, fake: FakeBroker
) -> None:
    """Ctrl-C while a request is under way: the request is cancelled, the block left, the task completed."""
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        # No answer before the task is being completed: nothing but the interrupt can lead there. One that comes while
        # Python collects garbage is swallowed by it; then another is sent.
        for _ in range(4):
            signal.pthread_kill(main, signal.SIGINT)
            with contextlib.suppress(AssertionError):
                fake.wait_until(lambda: bool(fake.asked("CompleteTask")), seconds=5)
                return

    fake.before["RequestCredential"] = interrupt
    with pytest.raises(KeyboardInterrupt), client.task("interrupted") as task:
        task.request("orders-readonly", account="shop", environment="dev", resource="orders", ttl="5m")
    assert len(fake.asked("CompleteTask")) == 1
    assert fake.asked("ConfirmDelivery") == []


def test_closing_ends_the_thread(fake: FakeBroker, files: SvidFiles) -> None:
    def threads() -> list[str]:
        return [each.name for each in threading.enumerate() if each.name == "broker.client.sync"]

    with broker.client.sync.connect(
        fake.address, certificate=files.certificate, key=files.key, bundle=files.bundle
    ) as client:
        client.whoami()
        assert len(threads()) == 1
    assert threads() == []


@pytest.mark.parametrize(
    ("facade", "original"), [(broker.client.sync.Client, AsyncClient), (broker.client.sync.Task, AsyncTask)]
)
def test_every_call_of_the_original_is_there_with_its_signature(facade: type, original: type) -> None:
    calls = {
        name: method
        for name, method in inspect.getmembers(original, inspect.isfunction)
        if not name.startswith("_") and name not in ("start", "hold")
    }
    assert calls
    for name, method in calls.items():
        mirrored = getattr(facade, name)
        if name != "close":
            assert inspect.signature(mirrored) == inspect.signature(method)
            assert mirrored.__doc__ == method.__doc__
