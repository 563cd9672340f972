"""A broker in memory that speaks the real wire over real mTLS, and misbehaves on request.

It decides nothing and checks nothing that the real one does (tests of ``broker/api`` do that); it is for
what the agents' side does with answers. Errors go out through ``broker/api/errors.py``, so that the
mapping is tested in both directions at once.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc

from broker.api.errors import to_status
from broker.api.tls import SERVER_OPTIONS
from broker.api.v1 import broker_service_pb2 as pb
from broker.api.v1 import (
    broker_service_pb2_grpc,
    contract_pb2,
    delegation_pb2,
    lease_pb2,
    plan_pb2,
    task_pb2,
    template_pb2,
)
from broker.errors import BrokerError, NotFound, Reason
from tests.forge import Authority, Forged, authority
from tests.patience import PATIENCE

TRUST_DOMAIN = "example.org"
AGENT = f"spiffe://{TRUST_DOMAIN}/agent/one"
ACTIVE, REVOKING, REVOKED = (
    lease_pb2.Lease.STATE_ACTIVE,
    lease_pb2.Lease.STATE_REVOKING,
    lease_pb2.Lease.STATE_REVOKED,
)
Fault = BrokerError | grpc.StatusCode


@dataclass(frozen=True)
class SvidFiles:
    """One identity in PEM files, as a CI job has it."""

    certificate: Path
    key: Path
    bundle: Path

    def write(self, svid: Forged, roots: Authority) -> SvidFiles:
        for path, data in (
            (self.key, svid.key_pem),
            (self.bundle, roots.pem),
            (self.certificate, svid.pem + svid.chain_pem),
        ):
            fresh = path.with_suffix(".new")
            fresh.write_bytes(data)
            fresh.replace(path)
        return self

    def options(self) -> list[str]:
        return ["--certificate", str(self.certificate), "--key", str(self.key), "--bundle", str(self.bundle)]


def svid_files(directory: Path, svid: Forged, roots: Authority) -> SvidFiles:
    directory.mkdir(parents=True, exist_ok=True)
    files = SvidFiles(directory / "svid.pem", directory / "svid.key", directory / "bundle.pem")
    return files.write(svid, roots)


@dataclass
class FakeBroker(broker_service_pb2_grpc.BrokerServiceServicer):
    """``calls`` is what was asked, ``faults[rpc]`` what to answer next instead (None: answer normally)."""

    ca: Authority = field(default_factory=lambda: authority(TRUST_DOMAIN, at=datetime.now(UTC)))
    dns: tuple[str, ...] = ("brokerd",)
    server_ca: Authority | None = None  # signs the server's own certificate, if it is not ``ca``
    expiry_only: bool = False
    kind: str = "database_login"
    gives: str = ""  # what its template says of that; empty: nothing
    calls: list[tuple[str, Any]] = field(default_factory=list)
    faults: dict[str, list[Fault | None]] = field(default_factory=lambda: defaultdict(list))
    before: dict[str, Callable[[], None]] = field(default_factory=dict)
    serials: list[bytes] = field(default_factory=list)
    tasks: dict[str, task_pb2.Task] = field(default_factory=dict)
    leases: dict[str, lease_pb2.Lease] = field(default_factory=dict)
    plans: dict[str, plan_pb2.Plan] = field(default_factory=dict)
    delegations: dict[str, delegation_pb2.Delegation] = field(default_factory=dict)
    events: list[lease_pb2.LeaseEvent] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)
    address: str = ""

    def __post_init__(self) -> None:
        self._server: grpc.Server | None = None
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()
        self._streams: set[queue.SimpleQueue[object]] = set()
        self.held: list[str] = []  # a task id for each HoldTask stream that is open now

    # ------------------------------------------------------------------ running

    def start(self) -> FakeBroker:
        svid = (self.server_ca or self.ca).svid(f"spiffe://{TRUST_DOMAIN}/brokerd", dns=self.dns)
        self._server = grpc.server(futures.ThreadPoolExecutor(64), options=SERVER_OPTIONS)
        broker_service_pb2_grpc.add_BrokerServiceServicer_to_server(self, self._server)
        credentials = grpc.ssl_server_credentials([(svid.key_pem, svid.pem)], self.ca.pem, True)
        port = self._server.add_secure_port(self.address or "127.0.0.1:0", credentials)
        self._server.start()
        self.address = f"127.0.0.1:{port}"
        return self

    def stop(self) -> None:
        self.break_streams()
        if self._server is not None:
            self._server.stop(grace=None).wait()

    def agent(self, **defects: Any) -> Forged:
        return self.ca.svid(AGENT, **defects)

    # ------------------------------------------------------------------ control

    def asked(self, rpc: str) -> list[Any]:
        return [request for name, request in self.calls if name == rpc]

    def break_streams(self) -> None:
        """Every open stream ends UNAVAILABLE, as with a broker that restarts."""
        for stream in tuple(self._streams):
            stream.put(grpc.StatusCode.UNAVAILABLE)

    def emit(self, kind: str, lease: lease_pb2.Lease, *, gap: bool = False) -> None:
        """Append an event; with ``gap`` the one before it is lost."""
        sequence = (self.events[-1].sequence if self.events else 0) + 1
        if gap:
            sequence += 1
        self.events.append(
            lease_pb2.LeaseEvent(sequence=sequence, previous_sequence=sequence - 1, type=kind, lease=lease)
        )
        for stream in tuple(self._streams):
            stream.put(None)

    def wait_until(self, true: Callable[[], bool], seconds: float = PATIENCE) -> None:
        with self._changed:
            assert self._changed.wait_for(true, timeout=seconds), "it did not come to that"

    def _begin(self, rpc: str, request: Any, context: grpc.ServicerContext) -> None:
        with self._changed:
            self.calls.append((rpc, request))
            self.serials.append(context.auth_context()["x509_pem_cert"][0])
            self._changed.notify_all()
        self.before.get(rpc, lambda: None)()
        fault = self.faults[rpc].pop(0) if self.faults[rpc] else None
        if isinstance(fault, BrokerError):
            context.abort_with_status(to_status(fault))
        elif fault is not None:
            context.abort(fault, "a fault of the test")

    # ------------------------------------------------------------------ the service

    def WhoAmI(self, request: Any, context: Any) -> pb.WhoAmIResponse:
        self._begin("WhoAmI", request, context)
        answer = pb.WhoAmIResponse(spiffe_id=AGENT, owner="Ada", tier="autonomous", roles=["reader"], tenant="default")
        answer.delivery, answer.principal = "direct", "analyst"
        answer.svid_expire_time.FromDatetime(datetime(2031, 5, 1, tzinfo=UTC))
        return answer

    def ListTemplates(self, request: Any, context: Any) -> pb.ListTemplatesResponse:
        self._begin("ListTemplates", request, context)
        template = template_pb2.ScopeTemplate(
            name="orders-readonly",
            description="Read orders.",
            connector="orders-db",
            accounts=["shop"],
            environments=["dev"],
            access="read",
            resource=template_pb2.ParameterSpec(name="resource", type="enum", expectation="orders"),
            parameters=[template_pb2.ParameterSpec(name="schema", type="enum", expectation="public")],
            contract=contract_pb2.RevocationContract(contract_class=contract_pb2.CONTRACT_CLASS_IMMEDIATE),
            gives=self.gives,
        )
        template.max_ttl.FromTimedelta(timedelta(minutes=15))
        return pb.ListTemplatesResponse(templates=[template])

    def StartTask(self, request: Any, context: Any) -> task_pb2.Task:
        self._begin("StartTask", request, context)
        task = task_pb2.Task(
            id=f"task-{next(self._numbers)}", creator=AGENT, purpose=request.purpose, state=task_pb2.Task.STATE_OPEN
        )
        self.tasks[task.id] = task
        return task

    def GetTask(self, request: Any, context: Any) -> task_pb2.Task:
        self._begin("GetTask", request, context)
        return self._task(request.task_id, context)

    def _task(self, task_id: str, context: Any) -> task_pb2.Task:
        if task_id not in self.tasks:
            missing = NotFound(Reason.TASK_NOT_FOUND, f"There is no task {task_id}.", hint="Start one.")
            context.abort_with_status(to_status(missing))
        return self.tasks[task_id]

    def CompleteTask(self, request: Any, context: Any) -> pb.CompleteTaskResponse:
        self._begin("CompleteTask", request, context)
        task = self._task(request.task_id, context)
        if task.state == task_pb2.Task.STATE_OPEN:  # what is over stays as it is
            task.state, task.end_cause = task_pb2.Task.STATE_COMPLETED, "COMPLETED"
        for lease in self.leases.values():
            if lease.task_id == task.id:
                self._end(lease)
        for stream in tuple(self._streams):
            stream.put(None)
        return pb.CompleteTaskResponse(
            task=task, leases=[each for each in self.leases.values() if each.task_id == task.id]
        )

    def _end(self, lease: lease_pb2.Lease) -> None:
        if lease.state == ACTIVE:
            lease.state = REVOKING if self.expiry_only else REVOKED
            lease.end_cause = "COMPLETED"

    def HoldTask(self, request: Any, context: Any) -> Iterator[pb.HoldTaskResponse]:
        self._begin("HoldTask", request, context)
        task = self._task(request.task_id, context)
        changes = self._listen(context)
        self._note(lambda: self.held.append(task.id))
        try:
            yield pb.HoldTaskResponse(task=task)
            if task.state != task_pb2.Task.STATE_OPEN:
                return
            for _ in self._turns(changes, context, request.grace.ToTimedelta().total_seconds() / 3):
                yield pb.HoldTaskResponse(task=task)
                if task.state != task_pb2.Task.STATE_OPEN:
                    return
        finally:
            self._note(lambda: self.held.remove(task.id))

    def _note(self, change: Callable[[], None]) -> None:
        with self._changed:
            change()
            self._changed.notify_all()

    def _listen(self, context: Any) -> queue.SimpleQueue[object]:
        """From here on, every change is in the queue."""
        changes: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._streams.add(changes)
        context.add_callback(lambda: changes.put(grpc.StatusCode.CANCELLED))
        return changes

    def _turns(self, changes: queue.SimpleQueue[object], context: Any, every: float | None = None) -> Iterator[None]:
        """One turn for each change, and ``every`` so many seconds, until the other end is gone or the test breaks the
        stream.
        """
        try:
            while True:
                try:
                    change = changes.get(timeout=every)
                except queue.Empty:
                    change = None
                if change is grpc.StatusCode.CANCELLED:
                    return
                if isinstance(change, grpc.StatusCode):
                    context.abort(change, "a stream broken by the test")
                yield
        finally:
            self._streams.discard(changes)

    def RequestCredential(self, request: Any, context: Any) -> pb.RequestCredentialResponse:
        self._begin("RequestCredential", request, context)
        decision = pb.Decision(policies=["read-dev"], explanations=["Reading in dev is fine."], policy_digest="d1g")
        if request.validate_only:
            return pb.RequestCredentialResponse(decision=decision)
        number = next(self._numbers)
        secret = f"pass'word\\{number}-{request.request_id}"
        self.secrets.append(secret)
        contract = (
            contract_pb2.CONTRACT_CLASS_EXPIRY_ONLY if self.expiry_only else contract_pb2.CONTRACT_CLASS_IMMEDIATE
        )
        lease = lease_pb2.Lease(
            id=f"lease-{number}",
            attempt_id=f"attempt-{number}",
            task_id=request.task_id,
            request_id=request.request_id,
            template=request.template,
            state=ACTIVE,
            contract_class=contract,
            parameters=request.parameters,
        )
        lease.expire_time.FromDatetime(datetime(2031, 5, 1, 12, 3, 10, tzinfo=UTC))
        self.leases[lease.id] = lease
        answer = pb.RequestCredentialResponse(decision=decision, lease=lease)
        if self.kind == "database_login":
            login = answer.credential.database_login
            login.engine, login.host, login.port, login.database = "postgresql", "127.0.0.1", 5432, "orders"
            login.username, login.password = f"token-{lease.attempt_id}", secret
        elif self.kind == "aws_session":
            session = answer.credential.aws_session
            session.access_key_id, session.secret_access_key, session.session_token = (
                "ASIAEXAMPLE",
                secret,
                f"token-{secret}",
            )
            session.region = "eu-central-1"
        elif self.kind == "aws_access_key":
            key = answer.credential.aws_access_key
            key.access_key_id, key.secret_access_key, key.region = "AKIAEXAMPLE", secret, "eu-central-1"
        elif self.kind == "x509_certificate":
            x509 = answer.credential.x509_certificate
            x509.certificate, x509.ca_chain, x509.serial_number = "the certificate\n", "the CA\n", "0a:0b"
        elif self.kind == "ssh_certificate":
            ssh = answer.credential.ssh_certificate
            ssh.certificate, ssh.serial_number = "ssh-cert-v01@openssh.com AAAA", "0a0b"
            ssh.principals.append("deploy")
        elif self.kind == "kubernetes_token":
            kubernetes = answer.credential.kubernetes_token
            kubernetes.token, kubernetes.service_account = secret, f"token-{lease.attempt_id}"
            kubernetes.namespace, kubernetes.server, kubernetes.cluster_ca = "shop", "https://k8s.test", "the CA\n"
            kubernetes.expire_time.FromDatetime(datetime(2031, 5, 1, 12, 3, 9, tzinfo=UTC))
        elif self.kind == "gcp_token":
            token = answer.credential.gcp_token
            token.access_token, token.project = secret, "acme-data"
            token.service_account = "orders-reader@acme-data.iam.gserviceaccount.com"
            token.scopes.append("https://www.googleapis.com/auth/devstorage.read_only")
            token.expire_time.FromDatetime(datetime(2031, 5, 1, 12, 3, 9, tzinfo=UTC))
            token.access_boundary = '{"accessBoundary":{}}'
        return answer

    def RegisterPlan(self, request: Any, context: Any) -> plan_pb2.Plan:
        self._begin("RegisterPlan", request, context)
        number = next(self._numbers)
        plan = plan_pb2.Plan(
            id=f"plan-{number}",
            task_id=request.task_id,
            planner=AGENT,
            planner_principal="analyst",
            text=request.text,
            actions=request.actions,
            digest=f"{number:064x}",
            state=plan_pb2.Plan.STATE_REGISTERED,
        )
        plan.deadline.FromDatetime(datetime(2031, 5, 1, 12, 3, 10, tzinfo=UTC))
        self.plans[plan.id] = plan
        return plan

    def GetPlan(self, request: Any, context: Any) -> plan_pb2.Plan:
        self._begin("GetPlan", request, context)
        return self.plans[request.plan_id]

    def ListPlans(self, request: Any, context: Any) -> plan_pb2.ListPlansResponse:
        self._begin("ListPlans", request, context)
        return plan_pb2.ListPlansResponse(plans=self.plans.values())

    def ValidatePlan(self, request: Any, context: Any) -> plan_pb2.Plan:
        self._begin("ValidatePlan", request, context)
        plan = self.plans[request.plan_id]
        confirmed = request.verdict == plan_pb2.ValidatePlanRequest.VERDICT_CONFIRM
        plan.state = plan_pb2.Plan.STATE_CONFIRMED if confirmed else plan_pb2.Plan.STATE_REJECTED
        plan.validator, plan.reason = f"{AGENT}-2", request.reason
        return plan

    def DelegateLease(self, request: Any, context: Any) -> delegation_pb2.Delegation:
        self._begin("DelegateLease", request, context)
        made = delegation_pb2.Delegation(
            id=f"delegation-{next(self._numbers)}",
            task_id="task-0",
            lease_id=request.lease_id,
            chain=[AGENT],
            delegate=request.delegate,
            resource=request.resource or "orders",
            parameters=request.parameters,
        )
        made.expire_time.FromDatetime(datetime(2031, 5, 1, 12, 3, 10, tzinfo=UTC))
        self.delegations[made.id] = made
        return made

    def RevokeDelegation(self, request: Any, context: Any) -> delegation_pb2.Delegation:
        self._begin("RevokeDelegation", request, context)
        made = self.delegations[request.delegation_id]
        made.revoke_time.FromDatetime(datetime(2031, 5, 1, 12, 0, 0, tzinfo=UTC))
        return made

    def ListDelegations(self, request: Any, context: Any) -> delegation_pb2.ListDelegationsResponse:
        self._begin("ListDelegations", request, context)
        return delegation_pb2.ListDelegationsResponse(delegations=self.delegations.values())

    def ConfirmDelivery(self, request: Any, context: Any) -> lease_pb2.Lease:
        self._begin("ConfirmDelivery", request, context)
        return self.leases[request.lease_id]

    def GetLease(self, request: Any, context: Any) -> lease_pb2.Lease:
        self._begin("GetLease", request, context)
        if request.lease_id not in self.leases:
            missing = NotFound(Reason.LEASE_NOT_FOUND, f"There is no lease {request.lease_id}.")
            context.abort_with_status(to_status(missing))
        return self.leases[request.lease_id]

    def ListLeases(self, request: Any, context: Any) -> pb.ListLeasesResponse:
        """Two to a page, so that paging is used."""
        self._begin("ListLeases", request, context)
        found = [each for each in self.leases.values() if request.task_id in ("", each.task_id)]
        start = int(request.page_token or 0)
        more = str(start + 2) if len(found) > start + 2 else ""
        return pb.ListLeasesResponse(leases=found[start : start + 2], next_page_token=more)

    def WatchLeases(self, request: Any, context: Any) -> Iterator[lease_pb2.LeaseEvent]:
        self._begin("WatchLeases", request, context)
        head = self.events[-1].sequence if self.events else 0
        last = head if request.after_sequence == -1 else request.after_sequence
        turns = self._turns(self._listen(context), context)
        known = tuple(self.events)  # what comes after a break of the stream is not told before it
        yield lease_pb2.LeaseEvent(sequence=last, previous_sequence=last)
        while True:
            for event in known:
                if event.sequence > last:
                    last = event.sequence
                    yield event
            if next(turns, ...) is ...:
                return
            known = tuple(self.events)

    def RevokeLease(self, request: Any, context: Any) -> lease_pb2.Lease:
        self._begin("RevokeLease", request, context)
        lease = self.leases[request.lease_id]
        self._end(lease)
        return lease
