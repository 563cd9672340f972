"""What the operations of a batch are going to ask, asked at once, where each answer is a way there and back.

What is read becomes images (:mod:`broker.stores.images`), under the lock and in the transaction of those that need it,
so it is as good as what this writer wrote itself: whoever changes such a row in the same batch changes its image. Rows
that are not there, or fail their MACs, are left to the operation, which asks for itself and refuses.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias

from broker.errors import Tampered
from broker.lease.machine import State
from broker.ports.intents import Intent
from broker.stores.database import Answers, Questions
from broker.stores.images import Images, counted, keep
from broker.stores.rows import (
    attempt_values,
    lease_values,
    packed_attempt,
    packed_lease,
    read_task,
    task_values,
    unpacked,
)
from broker.stores.text_ops import task_key
from broker.stores.transaction import Transaction
from broker.stores.view import Raw

Ask = Callable[[Questions], Answers]


class IntentAhead(NamedTuple):
    """Of an intent on an open task, as most are."""

    tenant: str
    task_id: str
    holder: str
    request_id: str
    most_alive: int
    most_of_task: int


class AttemptAhead(NamedTuple):
    """Of what goes on with an attempt that is being issued."""

    tenant: str
    attempt_id: str


Ahead: TypeAlias = IntentAhead | AttemptAhead


def of_intent(intent: Intent) -> IntentAhead:
    """What ``open_intent`` asks."""
    request = intent.request
    most = (intent.max_live_leases, intent.limits.leases_per_task)
    return IntentAhead(intent.tenant, request.task_id, intent.holder, request.request_id, *most)


def read(tx: Transaction, ask: Ask, wanted: Sequence[Ahead]) -> None:
    """Have images of what is wanted and not known, and the news of the intents."""
    images = tx.images
    images.news.clear()
    questions: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for each in dict.fromkeys(wanted):
        if isinstance(each, IntentAhead):
            _ask_of_intent(images, each, questions, keeps_texts=tx.keeps_texts)
        else:
            _ask_of_attempt(images, each, questions)
    if not questions:
        return
    asked = {name: list(dict.fromkeys(rows)) for name, rows in questions.items()}
    for name, found in ask(asked).items():
        for place, raw in found.items():
            _KNOW[name](tx, asked[name][place], raw)


def _ask_of_intent(
    images: Images, each: IntentAhead, questions: dict[str, list[tuple[Any, ...]]], *, keeps_texts: bool
) -> None:
    task, holder = (each.tenant, each.task_id), (each.tenant, each.holder)
    questions["intent_news"].append((each.holder, each.request_id, each.tenant))
    if task not in images.tasks or holder not in images.living:
        facts = (each.holder, each.most_alive, each.holder, each.request_id, each.tenant, each.task_id)
        questions["intent_facts"].append(facts)
    if task not in images.of_task:
        questions["count_leases_of_task"].append((*task, each.most_of_task))
    if keeps_texts and task not in images.text_keys:
        questions["text_key"].append(task)


def _ask_of_attempt(images: Images, each: AttemptAhead, questions: dict[str, list[tuple[Any, ...]]]) -> None:
    if each not in images.attempts:
        questions["attempt_facts"].append(tuple(each))


def _know_facts(tx: Transaction, asked: tuple[Any, ...], raw: Raw) -> None:
    holder, most, _, _, tenant, task_id = asked
    packed_task, _, count, *_ = raw
    task = read_task(unpacked(packed_task), tx.seal)
    if task.trusted:
        keep(tx.images.tasks, (tenant, task_id), task_values(task))
    if count < most:
        counted(tx.images.living, (tenant, holder), count)


def _know_news(tx: Transaction, asked: tuple[Any, ...], raw: Raw) -> None:
    tx.images.news[asked] = raw


def _know_count(tx: Transaction, asked: tuple[Any, ...], raw: Raw) -> None:
    tenant, task_id, most = asked
    if raw[0] < most:
        counted(tx.images.of_task, (tenant, task_id), raw[0])


def _know_key(tx: Transaction, asked: tuple[Any, ...], raw: Raw) -> None:
    tenant, task_id = asked
    with suppress(Tampered):
        keep(tx.images.text_keys, (tenant, task_id), task_key(tx, tenant, task_id, raw))


def _know_attempt(tx: Transaction, asked: tuple[Any, ...], raw: Raw) -> None:
    tenant, attempt_id = asked
    task_raw = unpacked(raw[2])
    attempt, lease = packed_attempt(raw[0], tx.seal), packed_lease(raw[1], tx.seal)
    if lease is None or task_raw[0] is None:
        return
    task = read_task(task_raw, tx.seal)
    if attempt.state == State.ISSUING and attempt.trusted and lease.trusted and task.trusted:
        keep(tx.images.attempts, (tenant, attempt_id), attempt_values(attempt))
        keep(tx.images.leases, (tenant, lease.id), lease_values(lease))
        keep(tx.images.tasks, (tenant, task.id), task_values(task))


_KNOW: dict[str, Callable[[Transaction, tuple[Any, ...], Raw], None]] = {
    "intent_facts": _know_facts,
    "intent_news": _know_news,
    "count_leases_of_task": _know_count,
    "text_key": _know_key,
    "attempt_facts": _know_attempt,
}
