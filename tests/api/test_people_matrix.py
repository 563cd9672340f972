"""Every person, every RPC of theirs, and something of their own agent's, of somebody else's, and that is not there.

Without the role the answer is one and the same for all three: nobody learns from it what there is. With it, what is
not there is not found, and a login that was for nothing in particular says yes to nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from broker.api.admin_server import ADMIN_SERVICE
from broker.api.authorization import ROLES
from tests.api.served import ANALYST, MIGRATOR, Served, ask, gate, people_changes, person, reason, serve, start_task

# Their roles; dana answers for the analyst, sam for the migrator.
PEOPLE: dict[str, set[str]] = {"dana": {"viewer"}, "sam": {"operator"}, "kim": {"security"}}
OWNERS = {"dana": ANALYST, "sam": MIGRATOR}
IDS = ("lease_id", "task_id", "access_request_id", "attempt_id", "agent", "holder")
# What a well-formed request says where it does not name something.
SAID: dict[str, Any] = {
    "request_id": "matrix",
    "reason": "r",
    "findings": "f",
    "incident": "i",
    "approval": "sre",
    "person": "dana",
    "digest": "0" * 64,
    "report_digest": "0" * 64,
    "deploy_digest": "0" * 64,
    "kind": 1,
    "count": 1,
    "suspension_id": "susp-none",
    "recovery_id": "rec-none",
    "subject": "none",
    "named": "none",
    "batch_id": "none",
    "name": "openbao-orders",
    "connector": "openbao-orders",
    "template": "orders-production",
    "account": "dev",
    "environment": "production",
    "resource": "orders",
    "value": "",
    "page_token": "",
    "note": "",
    "plan": "",
    "fresh_id_token": "",
}
NONE = {"agent": "spiffe://dev.broker.internal/agent/none", "holder": "spiffe://dev.broker.internal/agent/none"}


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serve(tmp_path, **people_changes(tmp_path)) as running:
        yield running


async def things(served: Served, who: str) -> dict[str, str]:
    """What there is of this agent."""
    stub = served.stub(who)
    task = await start_task(stub)
    lease = (await stub.RequestCredential(ask(task))).lease
    gate(served, dev=("sre",))
    filed = (await stub.RequestCredential(ask(task, "r2"))).access_request.id
    gate(served)
    return {
        "lease_id": lease.id,
        "task_id": task,
        "access_request_id": filed,
        "attempt_id": lease.attempt_id,
        "agent": who,
        "holder": who,
    }


def request(method: MethodDescriptor, named: dict[str, str]) -> Any:
    made = GetMessageClass(method.input_type)()
    for field in method.input_type.fields:
        if field.name in named or field.name in SAID:
            setattr(made, field.name, named.get(field.name, SAID.get(field.name)))
        elif field.name in ("ttl", "report_time"):
            getattr(made, field.name).seconds = 60
        else:
            assert field.type != FieldDescriptor.TYPE_STRING, (method.name, field.name)
    return made


async def answer(stub: Any, method: MethodDescriptor, asked: Any) -> tuple[str, str]:
    """The reason, and what was said; empty where the call was answered."""
    try:
        await getattr(stub, method.name)(asked)
    except grpc.aio.AioRpcError as error:
        return reason(error)[1], error.details() or ""
    return "", ""


# One in six, each of another kind; tests/api/test_people.py has all of them, with requests that name nothing.
_METHODS = [
    pytest.param(each, marks=[pytest.mark.slow] if n % 6 else []) for n, each in enumerate(ADMIN_SERVICE.methods)
]


@pytest.mark.parametrize("method", _METHODS, ids=lambda method: method.name)
async def test_of_ones_own_of_anothers_and_of_nobodys(served: Served, method: MethodDescriptor) -> None:
    analysts, migrators = await things(served, ANALYST), await things(served, MIGRATOR)
    nothing = {name: NONE.get(name, f"{value.partition('-')[0]}-none") for name, value in analysts.items()}
    needed = ROLES[f"/{ADMIN_SERVICE.full_name}/{method.name}"]
    for who, roles in PEOPLE.items():
        own, other = (analysts, migrators) if who == "dana" else (migrators, analysts)
        stub = person(served, who)
        answers = [await answer(stub, method, request(method, each)) for each in (own, other, nothing)]
        if needed and not needed & roles:
            assert answers[0][0] == "ROLE_REQUIRED"
            assert len(set(answers)) == 1, answers
            continue
        assert all(told != "ROLE_REQUIRED" for told, _ in answers), answers
        if {field.name for field in method.input_type.fields} & {"lease_id", "task_id", "access_request_id"}:
            assert answers[2][0] in UNKNOWN, answers
        if any(field.name == "fresh_id_token" for field in method.input_type.fields):
            assert all(told for told, _ in answers), answers  # a login for nothing in particular says yes to nothing


UNKNOWN = {
    *("LEASE_NOT_FOUND", "TASK_NOT_FOUND", "ACCESS_REQUEST_NOT_FOUND", "BREAK_GLASS_NOT_FOUND"),
    *("FRESH_LOGIN_REQUIRED", ""),  # the login comes first; lists of what is not there are empty
}
