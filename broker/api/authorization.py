"""Who may call what: the one authorization table, for agents and for people.

An RPC that is missing here keeps brokerd from starting (:func:`check_complete`). The table decides
on the *kind* of caller, and for people on their roles; whether the caller has a part in the task or lease it
names is decided where these are read (``broker/issuance``), in the same words for every door: what is not yours is
not found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from broker.errors import Defect, Denied, InvalidInput, NotReady, Reason
from broker.identity.agent import Delivery
from broker.identity.operator import EVERY_ROLE, Role


class Allowed(StrEnum):
    """Kinds of callers, from the widest to the narrowest."""

    ANY_SVID = "any valid SVID of a configured trust domain"
    REGISTERED_AGENT = "any valid SVID of a registered agent"
    OPERATOR = "an operator who has one of the method's roles"


class Relation(StrEnum):
    """What the caller must be to the thing it names."""

    NONE = "none"
    TASK_CREATOR = "the task's creator"
    TASK_PARTICIPANT = "the task's creator or a participant"
    LEASE_HOLDER = "the lease's holder"
    REQUEST_HOLDER = "who filed the access request"
    ASKED = "in a group that the access request asks, or the agent's owner"
    ASKED_AND_APART = "in a group that the access request asks, without a part in it"
    LEASE_CHAIN = "the lease's holder, or who handed on what it is a part of"
    DELEGATOR = "in the chain of the delegation"
    PLANNER = "the task's creator or a participant, with the role planner"
    VALIDATOR = "the task's creator or a participant, with the role validator"
    OWN_ONLY = "sees only its own"
    PRE_AUTHORISED = "in a group that the template's break_glass section names"
    OWN_OR_ROLE = "who broke the glass, or somebody with the role approver, operator or security"
    APART = "without a part in what it is about"


_AGENTS = "broker.api.v1.BrokerService"
_PEOPLE = "broker.api.v1.AdminService"

TABLE: Final[Mapping[str, tuple[Allowed, Relation]]] = MappingProxyType(
    {
        f"/{_AGENTS}/WhoAmI": (Allowed.REGISTERED_AGENT, Relation.OWN_ONLY),
        f"/{_AGENTS}/ListTemplates": (Allowed.REGISTERED_AGENT, Relation.NONE),
        f"/{_AGENTS}/StartTask": (Allowed.REGISTERED_AGENT, Relation.NONE),
        f"/{_AGENTS}/GetTask": (Allowed.REGISTERED_AGENT, Relation.TASK_PARTICIPANT),
        f"/{_AGENTS}/CompleteTask": (Allowed.REGISTERED_AGENT, Relation.TASK_CREATOR),
        f"/{_AGENTS}/HoldTask": (Allowed.REGISTERED_AGENT, Relation.TASK_CREATOR),
        f"/{_AGENTS}/RequestCredential": (Allowed.REGISTERED_AGENT, Relation.TASK_PARTICIPANT),
        f"/{_AGENTS}/GetAccessRequest": (Allowed.REGISTERED_AGENT, Relation.REQUEST_HOLDER),
        f"/{_AGENTS}/ListAccessRequests": (Allowed.REGISTERED_AGENT, Relation.OWN_ONLY),
        f"/{_AGENTS}/WatchAccessRequests": (Allowed.REGISTERED_AGENT, Relation.OWN_ONLY),
        f"/{_AGENTS}/WithdrawAccessRequest": (Allowed.REGISTERED_AGENT, Relation.REQUEST_HOLDER),
        f"/{_AGENTS}/RedeemAccessRequest": (Allowed.REGISTERED_AGENT, Relation.REQUEST_HOLDER),
        f"/{_AGENTS}/ConfirmDelivery": (Allowed.REGISTERED_AGENT, Relation.LEASE_HOLDER),
        f"/{_AGENTS}/GetLease": (Allowed.REGISTERED_AGENT, Relation.LEASE_CHAIN),
        f"/{_AGENTS}/ListLeases": (Allowed.REGISTERED_AGENT, Relation.OWN_ONLY),
        f"/{_AGENTS}/WatchLeases": (Allowed.REGISTERED_AGENT, Relation.OWN_ONLY),
        f"/{_AGENTS}/RevokeLease": (Allowed.REGISTERED_AGENT, Relation.LEASE_CHAIN),
        f"/{_AGENTS}/RegisterPlan": (Allowed.REGISTERED_AGENT, Relation.PLANNER),
        f"/{_AGENTS}/ValidatePlan": (Allowed.REGISTERED_AGENT, Relation.VALIDATOR),
        f"/{_AGENTS}/GetPlan": (Allowed.REGISTERED_AGENT, Relation.TASK_PARTICIPANT),
        f"/{_AGENTS}/ListPlans": (Allowed.REGISTERED_AGENT, Relation.TASK_PARTICIPANT),
        f"/{_AGENTS}/DelegateLease": (Allowed.REGISTERED_AGENT, Relation.LEASE_HOLDER),
        f"/{_AGENTS}/RevokeDelegation": (Allowed.REGISTERED_AGENT, Relation.DELEGATOR),
        f"/{_AGENTS}/ListDelegations": (Allowed.REGISTERED_AGENT, Relation.TASK_PARTICIPANT),
        f"/{_PEOPLE}/GetOperator": (Allowed.OPERATOR, Relation.OWN_ONLY),
        f"/{_PEOPLE}/Suspend": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/Resume": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/ListSuspensions": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/ReviewLeases": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/ListAccessRequests": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/GetAccessRequest": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/ApproveAccessRequest": (Allowed.OPERATOR, Relation.ASKED_AND_APART),
        f"/{_PEOPLE}/DenyAccessRequest": (Allowed.OPERATOR, Relation.ASKED),
        f"/{_PEOPLE}/BreakGlass": (Allowed.OPERATOR, Relation.PRE_AUTHORISED),
        f"/{_PEOPLE}/ConfirmBreakGlass": (Allowed.OPERATOR, Relation.OWN_ONLY),
        f"/{_PEOPLE}/EndBreakGlass": (Allowed.OPERATOR, Relation.OWN_OR_ROLE),
        f"/{_PEOPLE}/GetBreakGlass": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/ListBreakGlass": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/ReviewBreakGlass": (Allowed.OPERATOR, Relation.APART),
        f"/{_PEOPLE}/OverrideBreakGlass": (Allowed.OPERATOR, Relation.APART),
        f"/{_PEOPLE}/CreateBreakGlassCodes": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/ListBreakGlassCodes": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/RevokeBreakGlassCodes": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/GetRecovery": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/ReleaseRecovery": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/GetTaskTexts": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/EraseTaskTexts": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/ListLeases": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/GetLease": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/RevokeLease": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/ListTasks": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/GetTask": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/CompleteTask": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/ListAgents": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/GetAgent": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/ReloadDeploy": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/ReadAudit": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/SignOffAccessReview": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/ForgetLease": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/ListConnectors": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/GetConnector": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/ExamineConnector": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/RunReconciliation": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/ListUnknown": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/ListCanaries": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/GetCanary": (Allowed.OPERATOR, Relation.NONE),
        f"/{_PEOPLE}/RunCanary": (Allowed.OPERATOR, Relation.NONE),
        "/grpc.health.v1.Health/Check": (Allowed.ANY_SVID, Relation.NONE),
        "/grpc.health.v1.Health/List": (Allowed.ANY_SVID, Relation.NONE),
        "/grpc.health.v1.Health/Watch": (Allowed.ANY_SVID, Relation.NONE),
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": (Allowed.ANY_SVID, Relation.NONE),
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": (Allowed.ANY_SVID, Relation.NONE),
    }
)

# Which roles each of the people's RPCs takes; one of them is enough. None of them: any operator will do.
ROLES: Final[Mapping[str, frozenset[Role]]] = MappingProxyType(
    {
        f"/{_PEOPLE}/GetOperator": frozenset(),
        f"/{_PEOPLE}/Suspend": frozenset({Role.OPERATOR, Role.SECURITY}),
        f"/{_PEOPLE}/Resume": frozenset({Role.OPERATOR, Role.SECURITY}),
        f"/{_PEOPLE}/ListSuspensions": EVERY_ROLE,
        f"/{_PEOPLE}/ReviewLeases": frozenset({Role.OPERATOR, Role.SECURITY}),
        f"/{_PEOPLE}/ListAccessRequests": EVERY_ROLE,
        f"/{_PEOPLE}/GetAccessRequest": EVERY_ROLE,
        f"/{_PEOPLE}/ApproveAccessRequest": frozenset({Role.APPROVER}),
        f"/{_PEOPLE}/DenyAccessRequest": frozenset({Role.APPROVER}),
        f"/{_PEOPLE}/BreakGlass": frozenset(),
        f"/{_PEOPLE}/ConfirmBreakGlass": frozenset(),
        f"/{_PEOPLE}/EndBreakGlass": frozenset(),
        f"/{_PEOPLE}/GetBreakGlass": frozenset(),
        f"/{_PEOPLE}/ListBreakGlass": frozenset(),
        f"/{_PEOPLE}/ReviewBreakGlass": frozenset({Role.APPROVER, Role.SECURITY}),
        f"/{_PEOPLE}/OverrideBreakGlass": frozenset({Role.OPERATOR, Role.SECURITY}),
        f"/{_PEOPLE}/CreateBreakGlassCodes": frozenset({Role.SECURITY}),
        f"/{_PEOPLE}/ListBreakGlassCodes": frozenset({Role.SECURITY, Role.AUDITOR}),
        f"/{_PEOPLE}/RevokeBreakGlassCodes": frozenset({Role.OPERATOR, Role.SECURITY}),
        f"/{_PEOPLE}/GetRecovery": EVERY_ROLE,
        f"/{_PEOPLE}/ReleaseRecovery": frozenset({Role.OPERATOR, Role.SECURITY}),
        f"/{_PEOPLE}/GetTaskTexts": frozenset({Role.AUDITOR, Role.SECURITY}),
        f"/{_PEOPLE}/EraseTaskTexts": frozenset({Role.SECURITY}),
        f"/{_PEOPLE}/ListLeases": EVERY_ROLE,
        f"/{_PEOPLE}/GetLease": EVERY_ROLE,
        f"/{_PEOPLE}/RevokeLease": frozenset({Role.OPERATOR, Role.SECURITY}),
        f"/{_PEOPLE}/ListTasks": EVERY_ROLE,
        f"/{_PEOPLE}/GetTask": EVERY_ROLE,
        f"/{_PEOPLE}/CompleteTask": frozenset({Role.OPERATOR, Role.SECURITY}),
        f"/{_PEOPLE}/ListAgents": EVERY_ROLE,
        f"/{_PEOPLE}/GetAgent": EVERY_ROLE,
        f"/{_PEOPLE}/ReloadDeploy": frozenset({Role.OPERATOR}),
        f"/{_PEOPLE}/ReadAudit": frozenset({Role.AUDITOR, Role.SECURITY}),
        f"/{_PEOPLE}/SignOffAccessReview": frozenset({Role.AUDITOR, Role.SECURITY}),
        f"/{_PEOPLE}/ForgetLease": frozenset({Role.OPERATOR, Role.SECURITY}),
        f"/{_PEOPLE}/ListConnectors": EVERY_ROLE,
        f"/{_PEOPLE}/GetConnector": EVERY_ROLE,
        f"/{_PEOPLE}/ExamineConnector": EVERY_ROLE,
        f"/{_PEOPLE}/RunReconciliation": frozenset({Role.OPERATOR}),
        f"/{_PEOPLE}/ListUnknown": EVERY_ROLE,
        f"/{_PEOPLE}/ListCanaries": EVERY_ROLE,
        f"/{_PEOPLE}/GetCanary": EVERY_ROLE,
        f"/{_PEOPLE}/RunCanary": frozenset({Role.OPERATOR}),
    }
)

# What operators' automation may call, if it has the role: looking, and what only takes away. Not who decides.
AUTOMATION: Final = frozenset(
    f"/{_PEOPLE}/{name}"
    for name in (
        "GetOperator",
        "Suspend",
        "GetRecovery",
        "ListSuspensions",
        "ListAccessRequests",
        "GetAccessRequest",
        "ReadAudit",
        "EndBreakGlass",
        "GetBreakGlass",
        "ListBreakGlass",
        "ListBreakGlassCodes",
        "RevokeBreakGlassCodes",
        "ListLeases",
        "GetLease",
        "RevokeLease",
        "ListTasks",
        "GetTask",
        "CompleteTask",
        "ListAgents",
        "GetAgent",
        "ListConnectors",
        "GetConnector",
        "ExamineConnector",
        "RunReconciliation",
        "ListUnknown",
        "ListCanaries",
        "GetCanary",
    )
)

# What people look at. Each of these calls is told in the audit trail (broker/api/looks.py), but for GetTaskTexts, which
# tells it itself, before anything is shown.
LOOKS: Final = frozenset(
    f"/{_PEOPLE}/{name}"
    for name in (
        "GetOperator",
        "ListSuspensions",
        "ListAccessRequests",
        "GetAccessRequest",
        "GetBreakGlass",
        "ListBreakGlass",
        "ListBreakGlassCodes",
        "GetRecovery",
        "ListLeases",
        "GetLease",
        "ListTasks",
        "GetTask",
        "ListAgents",
        "GetAgent",
        "ListConnectors",
        "GetConnector",
        "ListUnknown",
        "ExamineConnector",
        "ListCanaries",
        "GetCanary",
        "ReadAudit",
    )
)

# What a paper is good for that is valid by the wall clock alone, while time is doubted (ports/clock.by_either): to
# look, and to end what ends anyway. Not to decide, to erase, or to take away what an emergency needs.
IN_DOUBT: Final = (
    LOOKS
    | {
        f"/{_PEOPLE}/{name}"
        for name in ("Suspend", "EndBreakGlass", "RevokeLease", "CompleteTask", "RunReconciliation")
    }
    | {
        f"/{_AGENTS}/{name}"
        for name in (
            "WhoAmI",
            "ListTemplates",
            "GetTask",
            "CompleteTask",
            "HoldTask",
            "GetAccessRequest",
            "ListAccessRequests",
            "WatchAccessRequests",
            "WithdrawAccessRequest",
            "GetLease",
            "ListLeases",
            "WatchLeases",
            "RevokeLease",
            "GetPlan",
            "ListPlans",
            "RevokeDelegation",
            "ListDelegations",
        )
    }
)

# What a replica still does when others have replaced its deploy set for long (issuance/among.py), whose people may be
# disabled and whose policies may be over: to look, to take away, to confirm what was granted, and to have its set back.
BEHIND: Final = (IN_DOUBT - {f"/{_PEOPLE}/RunReconciliation"}) | {
    f"/{_AGENTS}/ConfirmDelivery",
    f"/{_PEOPLE}/ConfirmBreakGlass",
    f"/{_PEOPLE}/DenyAccessRequest",
    f"/{_PEOPLE}/ReloadDeploy",
}

# What changes something. Through a proxy each needs a request_id of its own.
CHANGES: Final = frozenset(
    f"/{_AGENTS}/{name}"
    for name in (
        "StartTask",
        "CompleteTask",
        "HoldTask",
        "RequestCredential",
        "WithdrawAccessRequest",
        "RedeemAccessRequest",
        "ConfirmDelivery",
        "RevokeLease",
        "RegisterPlan",
        "ValidatePlan",
        "DelegateLease",
        "RevokeDelegation",
    )
)

# What gets its caller something. An agent that cools down may do everything else, giving back above all.
GRANTS: Final = frozenset(f"/{_AGENTS}/{name}" for name in ("StartTask", "RequestCredential", "RedeemAccessRequest"))


def allowed(method: str) -> Allowed:
    """Who may call ``method``. Raises :class:`Denied` for one that nobody has decided about."""
    try:
        return TABLE[method][0]
    except KeyError:
        raise Denied(Reason.METHOD_NOT_FOUND, f"nobody has decided who may call {method}.") from None


def check_in_doubt(method: str, ends: datetime, now: datetime) -> None:
    """Raises :class:`NotReady` (CLOCK_DOUBTED) where the caller's paper, taken in doubt, has ended at ``now``, and
    ``method`` is not :data:`IN_DOUBT`.
    """
    if ends < now and method not in IN_DOUBT:
        raise NotReady(
            Reason.CLOCK_DOUBTED,
            f"what you prove yourself by was valid until {ends.isoformat()}, and the broker's time is {now.isoformat()}"
            f". While its clock is doubted, that does to look and to end things, not for {method.rpartition('/')[2]}.",
            hint="Operators: docs/time-and-disk.md. The doubt ends by itself when the wall clock has caught up.",
            metadata={"notAfter": ends.isoformat(), "now": now.isoformat()},
        )


def check_roles(method: str, roles: frozenset[Role]) -> None:
    """Raises :class:`Denied` (ROLE_REQUIRED) where somebody with ``roles`` may not call ``method``."""
    needed = ROLES[method]
    if needed and not needed & roles:
        names = sorted(needed)
        raise Denied(
            Reason.ROLE_REQUIRED,
            f"{method.rpartition('/')[2]} takes one of the roles {', '.join(names)}; you have {_told(roles)}.",
            hint="Ask somebody who has one. brokerd's configuration (roles) gives roles to groups of people.yaml.",
            metadata={"needed": ",".join(names), "roles": ",".join(sorted(roles))},
        )


def check_automation(method: str) -> None:
    """Raises :class:`Denied` (PERSON_REQUIRED) for what automation never does."""
    if method not in AUTOMATION:
        raise Denied(
            Reason.PERSON_REQUIRED,
            f"{method.rpartition('/')[2]} takes a person.",
            hint="Automation looks and stops. Have a person log in (`broker login`) and do it.",
        )


def _told(roles: frozenset[Role]) -> str:
    return ", ".join(sorted(roles)) or "none"


def check_complete(methods: Iterable[str]) -> None:
    """Refuse to serve (:class:`Defect`) while one of ``methods`` is not in the table, or its roles are undecided."""
    missing = sorted(method for method in set(methods) if not _decided(method))
    if missing:
        raise Defect(Reason.INTERNAL, f"no authorization rule for {', '.join(missing)}.")


def _decided(method: str) -> bool:
    return method in TABLE and (method in ROLES) is (TABLE[method][0] is Allowed.OPERATOR)


def check_request_id(method: str, request: Any, delivery: Delivery) -> None:
    """Raises :class:`InvalidInput` (REQUEST_ID_REQUIRED) for a change through a proxy that has none.

    A proxy, and whoever sits behind it, may send a call again that it saw; its id makes the repeat
    recognisable, in the ledger where the change makes something new and in both sides' logs elsewhere.
    """
    if delivery is Delivery.PROXY and method in CHANGES and not request.request_id:
        raise InvalidInput(
            Reason.REQUEST_ID_REQUIRED,
            f"{method.rpartition('/')[2]} came through a proxy without a request_id.",
            hint="Give each change an id of its own, and the same one when it is sent again.",
            metadata={"field": "request_id"},
        )
