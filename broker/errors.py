"""What can go wrong, as types that survive the wire.

Belongs here: one class per *family* of failure (each maps to exactly one gRPC status, in
``broker/api/errors.py``) and one :class:`Reason` per distinguishable cause. A family exists only
because somebody handles it by type; a reason exists because an operator or a program tells it from
its neighbours. Messages may change freely; reasons are API (AIP-193).

Does not belong here: gRPC, exit codes, log formats.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Self

# The ``domain`` of every ErrorInfo this broker sends (AIP-193).
ERROR_DOMAIN = "broker.jit"


class Reason(StrEnum):
    """Stable causes, sent as ``ErrorInfo.reason``: UPPER_SNAKE_CASE, at most 63 characters."""

    # The caller's identity (family Unauthenticated).
    SVID_MISSING = "SVID_MISSING"
    SVID_MALFORMED = "SVID_MALFORMED"
    SVID_URI_COUNT = "SVID_URI_COUNT"
    SVID_ID_NOT_CANONICAL = "SVID_ID_NOT_CANONICAL"
    SVID_IS_CA = "SVID_IS_CA"
    SVID_KEY_USAGE = "SVID_KEY_USAGE"
    SVID_EXTENDED_KEY_USAGE = "SVID_EXTENDED_KEY_USAGE"
    SVID_KEY_WEAK = "SVID_KEY_WEAK"
    SVID_EXPIRED = "SVID_EXPIRED"
    SVID_NOT_YET_VALID = "SVID_NOT_YET_VALID"
    SVID_TRUST_DOMAIN_UNKNOWN = "SVID_TRUST_DOMAIN_UNKNOWN"
    SVID_CHAIN_INVALID = "SVID_CHAIN_INVALID"
    JWT_SVID_MISSING = "JWT_SVID_MISSING"
    JWT_SVID_UNEXPECTED = "JWT_SVID_UNEXPECTED"
    JWT_SVID_MALFORMED = "JWT_SVID_MALFORMED"
    JWT_SVID_HEADER = "JWT_SVID_HEADER"
    JWT_SVID_ALGORITHM = "JWT_SVID_ALGORITHM"
    JWT_SVID_KEY_UNKNOWN = "JWT_SVID_KEY_UNKNOWN"
    JWT_SVID_SIGNATURE = "JWT_SVID_SIGNATURE"
    JWT_SVID_CLAIM_INVALID = "JWT_SVID_CLAIM_INVALID"
    JWT_SVID_AUDIENCE = "JWT_SVID_AUDIENCE"
    JWT_SVID_EXPIRED = "JWT_SVID_EXPIRED"
    JWT_SVID_LIFE_TOO_LONG = "JWT_SVID_LIFE_TOO_LONG"
    JWT_SVID_NOT_YET_VALID = "JWT_SVID_NOT_YET_VALID"
    JWT_SVID_OF_ANOTHER_PROXY = "JWT_SVID_OF_ANOTHER_PROXY"
    ID_TOKEN_MISSING = "ID_TOKEN_MISSING"
    ID_TOKEN_MALFORMED = "ID_TOKEN_MALFORMED"
    ID_TOKEN_HEADER = "ID_TOKEN_HEADER"
    ID_TOKEN_ALGORITHM = "ID_TOKEN_ALGORITHM"
    ID_TOKEN_KEY_UNKNOWN = "ID_TOKEN_KEY_UNKNOWN"
    ID_TOKEN_SIGNATURE = "ID_TOKEN_SIGNATURE"
    ID_TOKEN_ISSUER_UNKNOWN = "ID_TOKEN_ISSUER_UNKNOWN"
    ID_TOKEN_CLAIM_INVALID = "ID_TOKEN_CLAIM_INVALID"
    ID_TOKEN_AUDIENCE = "ID_TOKEN_AUDIENCE"
    ID_TOKEN_NONCE = "ID_TOKEN_NONCE"
    ID_TOKEN_EXPIRED = "ID_TOKEN_EXPIRED"
    ID_TOKEN_NOT_YET_VALID = "ID_TOKEN_NOT_YET_VALID"
    ID_TOKEN_LIFE_TOO_LONG = "ID_TOKEN_LIFE_TOO_LONG"
    ID_TOKEN_TOO_OLD = "ID_TOKEN_TOO_OLD"
    ID_TOKEN_GROUPS = "ID_TOKEN_GROUPS"
    PERSON_UNKNOWN = "PERSON_UNKNOWN"
    BREAK_GLASS_CODE_INVALID = "BREAK_GLASS_CODE_INVALID"
    # Logging in; told by the command line itself, never sent (family Unauthenticated).
    LOGIN_REQUIRED = "LOGIN_REQUIRED"
    LOGIN_FAILED = "LOGIN_FAILED"
    LOGIN_TIMED_OUT = "LOGIN_TIMED_OUT"
    # What was asked (family InvalidInput).
    MESSAGE_TOO_LARGE = "MESSAGE_TOO_LARGE"
    MESSAGE_MALFORMED = "MESSAGE_MALFORMED"
    FIELD_INVALID = "FIELD_INVALID"
    CREDENTIAL_IN_REQUEST = "CREDENTIAL_IN_REQUEST"
    TTL_INVALID = "TTL_INVALID"
    TTL_TOO_LONG = "TTL_TOO_LONG"
    TTL_TOO_SHORT = "TTL_TOO_SHORT"
    WRAP_TTL_INVALID = "WRAP_TTL_INVALID"
    WRAPPING_NOT_ALLOWED = "WRAPPING_NOT_ALLOWED"
    WRAPPING_UNSUPPORTED = "WRAPPING_UNSUPPORTED"
    CANARY_CANNOT_MEASURE = "CANARY_CANNOT_MEASURE"
    FIELD_REQUIRED_BY_TEMPLATE = "FIELD_REQUIRED_BY_TEMPLATE"
    PARAMETER_UNKNOWN = "PARAMETER_UNKNOWN"
    PARAMETER_MISSING = "PARAMETER_MISSING"
    PARAMETER_INVALID = "PARAMETER_INVALID"
    PARAMETER_FROM_IDENTITY = "PARAMETER_FROM_IDENTITY"
    SEGMENT_NOT_IN_IDENTITY = "SEGMENT_NOT_IN_IDENTITY"
    ACCOUNT_NOT_IN_TEMPLATE = "ACCOUNT_NOT_IN_TEMPLATE"
    ENVIRONMENT_NOT_IN_TEMPLATE = "ENVIRONMENT_NOT_IN_TEMPLATE"
    RESOURCE_NOT_IN_TEMPLATE = "RESOURCE_NOT_IN_TEMPLATE"
    SCOPE_TOO_LARGE = "SCOPE_TOO_LARGE"
    PAGE_TOKEN_INVALID = "PAGE_TOKEN_INVALID"
    SUSPENSION_VALUE_INVALID = "SUSPENSION_VALUE_INVALID"
    BREAK_GLASS_REASON_MISSING = "BREAK_GLASS_REASON_MISSING"
    BREAK_GLASS_INCIDENT_MISSING = "BREAK_GLASS_INCIDENT_MISSING"
    BREAK_GLASS_VALUE_INVALID = "BREAK_GLASS_VALUE_INVALID"
    REQUEST_ID_REQUIRED = "REQUEST_ID_REQUIRED"
    RECIPIENT_KEY_INVALID = "RECIPIENT_KEY_INVALID"
    PLAN_DIGEST_MISMATCH = "PLAN_DIGEST_MISMATCH"
    PLAN_STEP_UNKNOWN = "PLAN_STEP_UNKNOWN"
    DELEGATION_CIRCULAR = "DELEGATION_CIRCULAR"
    TOOL_CALL_MALFORMED = "TOOL_CALL_MALFORMED"
    ON_BEHALF_OF_NOT_TAKEN = "ON_BEHALF_OF_NOT_TAKEN"
    CONFIG_INVALID = "CONFIG_INVALID"
    # What the caller may not do (family Denied).
    AGENT_NOT_REGISTERED = "AGENT_NOT_REGISTERED"
    AGENT_DENIED = "AGENT_DENIED"
    PROXY_NOT_ALLOWED = "PROXY_NOT_ALLOWED"
    OPERATOR_DISABLED = "OPERATOR_DISABLED"
    AUTOMATION_UNKNOWN = "AUTOMATION_UNKNOWN"
    PERSON_REQUIRED = "PERSON_REQUIRED"
    ROLE_REQUIRED = "ROLE_REQUIRED"
    SUSPENDED = "SUSPENDED"
    SECOND_PERSON_REQUIRED = "SECOND_PERSON_REQUIRED"
    BREAK_GLASS_NOT_ALLOWED = "BREAK_GLASS_NOT_ALLOWED"
    BREAK_GLASS_BLOCKED = "BREAK_GLASS_BLOCKED"
    BREAK_GLASS_CODE_OF_ANOTHER = "BREAK_GLASS_CODE_OF_ANOTHER"
    REVIEW_OF_ONES_OWN = "REVIEW_OF_ONES_OWN"
    FRESH_LOGIN_REQUIRED = "FRESH_LOGIN_REQUIRED"
    FRESH_LOGIN_OF_ANOTHER = "FRESH_LOGIN_OF_ANOTHER"
    FRESH_LOGIN_TOO_WEAK = "FRESH_LOGIN_TOO_WEAK"
    FRESH_LOGIN_TOO_EARLY = "FRESH_LOGIN_TOO_EARLY"
    FRESH_LOGIN_USED = "FRESH_LOGIN_USED"
    LOGIN_REFUSED = "LOGIN_REFUSED"
    POLICY_DENIED = "POLICY_DENIED"
    POLICY_ERROR = "POLICY_ERROR"
    APPROVAL_NEEDED = "APPROVAL_NEEDED"
    NOT_TASK_CREATOR = "NOT_TASK_CREATOR"
    SELF_APPROVAL = "SELF_APPROVAL"
    NOT_AN_APPROVER = "NOT_AN_APPROVER"
    APPROVAL_NOT_HELD = "APPROVAL_NOT_HELD"
    DENIED_BEFORE = "DENIED_BEFORE"
    AGENT_ROLE_REQUIRED = "AGENT_ROLE_REQUIRED"
    PLAN_SAME_PRINCIPAL = "PLAN_SAME_PRINCIPAL"
    PLAN_EXCEEDED = "PLAN_EXCEEDED"
    DELEGATE_NOT_PARTICIPANT = "DELEGATE_NOT_PARTICIPANT"
    DELEGATION_EXCEEDED = "DELEGATION_EXCEEDED"
    DELEGATION_TOO_DEEP = "DELEGATION_TOO_DEEP"
    TOOL_NOT_ALLOWED = "TOOL_NOT_ALLOWED"
    ON_BEHALF_OF_NOBODY = "ON_BEHALF_OF_NOBODY"
    ON_BEHALF_OF_EXCEEDED = "ON_BEHALF_OF_EXCEEDED"
    # What is not there, or not the caller's: told alike, so that ids cannot be probed (family NotFound).
    TEMPLATE_NOT_FOUND = "TEMPLATE_NOT_FOUND"
    CONNECTOR_NOT_FOUND = "CONNECTOR_NOT_FOUND"
    TASK_NOT_FOUND = "TASK_NOT_FOUND"
    LEASE_NOT_FOUND = "LEASE_NOT_FOUND"
    SUSPENSION_NOT_FOUND = "SUSPENSION_NOT_FOUND"
    BREAK_GLASS_NOT_FOUND = "BREAK_GLASS_NOT_FOUND"
    BREAK_GLASS_CODE_NOT_FOUND = "BREAK_GLASS_CODE_NOT_FOUND"
    ACCESS_REQUEST_NOT_FOUND = "ACCESS_REQUEST_NOT_FOUND"
    PLAN_NOT_FOUND = "PLAN_NOT_FOUND"
    DELEGATION_NOT_FOUND = "DELEGATION_NOT_FOUND"
    CANARY_NOT_FOUND = "CANARY_NOT_FOUND"
    METHOD_NOT_FOUND = "METHOD_NOT_FOUND"
    # The same id with other content, or at the same time (family Conflict).
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    REQUEST_IN_FLIGHT = "REQUEST_IN_FLIGHT"
    CANARY_RUNNING = "CANARY_RUNNING"
    APPROVAL_DIGEST_MISMATCH = "APPROVAL_DIGEST_MISMATCH"
    VOTE_ALREADY_CAST = "VOTE_ALREADY_CAST"
    ID_TOKEN_USED = "ID_TOKEN_USED"
    TASK_REPORTED = "TASK_REPORTED"
    # Right request, wrong moment (family WrongState).
    TASK_ENDED = "TASK_ENDED"
    LEASE_ENDED = "LEASE_ENDED"
    LEASE_NOT_FORGETTABLE = "LEASE_NOT_FORGETTABLE"
    TASK_ENDS_TOO_SOON = "TASK_ENDS_TOO_SOON"
    SUSPENSION_ENDED = "SUSPENSION_ENDED"
    ACCESS_REPORT_STALE = "ACCESS_REPORT_STALE"
    BREAK_GLASS_LIVE = "BREAK_GLASS_LIVE"
    BREAK_GLASS_REVIEWED = "BREAK_GLASS_REVIEWED"
    BREAK_GLASS_NOTHING_TO_OVERRIDE = "BREAK_GLASS_NOTHING_TO_OVERRIDE"
    BREAK_GLASS_CODE_SPENT = "BREAK_GLASS_CODE_SPENT"
    NOT_IN_RECOVERY = "NOT_IN_RECOVERY"
    ACCESS_REQUEST_PENDING = "ACCESS_REQUEST_PENDING"
    ACCESS_REQUEST_APPROVED = "ACCESS_REQUEST_APPROVED"
    ACCESS_REQUEST_DENIED = "ACCESS_REQUEST_DENIED"
    ACCESS_REQUEST_WITHDRAWN = "ACCESS_REQUEST_WITHDRAWN"
    ACCESS_REQUEST_LAPSED = "ACCESS_REQUEST_LAPSED"
    ACCESS_REQUEST_REDEEMED = "ACCESS_REQUEST_REDEEMED"
    APPROVAL_TEMPLATE_CHANGED = "APPROVAL_TEMPLATE_CHANGED"
    APPROVAL_POLICY_CHANGED = "APPROVAL_POLICY_CHANGED"
    PLAN_NOT_CONFIRMED = "PLAN_NOT_CONFIRMED"
    PLAN_REJECTED = "PLAN_REJECTED"
    PLAN_LAPSED = "PLAN_LAPSED"
    PLAN_DECIDED = "PLAN_DECIDED"
    PLAN_STEP_USED = "PLAN_STEP_USED"
    DELEGATION_ENDED = "DELEGATION_ENDED"
    DELEGATION_USED = "DELEGATION_USED"
    # Limits (family Exhausted).
    QUOTA_LIVE_LEASES = "QUOTA_LIVE_LEASES"
    QUOTA_OPEN_TASKS = "QUOTA_OPEN_TASKS"
    QUOTA_PENDING_REQUESTS = "QUOTA_PENDING_REQUESTS"
    LIMIT_ATTEMPTS_PER_LEASE = "LIMIT_ATTEMPTS_PER_LEASE"
    LIMIT_LEASES_PER_TASK = "LIMIT_LEASES_PER_TASK"
    LIMIT_PLANS_PER_TASK = "LIMIT_PLANS_PER_TASK"
    LIMIT_DELEGATIONS = "LIMIT_DELEGATIONS"
    BREAK_GLASS_RATE = "BREAK_GLASS_RATE"
    QUOTA_REQUESTS = "QUOTA_REQUESTS"
    COOLING_DOWN = "COOLING_DOWN"
    TOO_MANY_CONCURRENT_REQUESTS = "TOO_MANY_CONCURRENT_REQUESTS"
    TOO_MANY_PROXIED_TOKENS = "TOO_MANY_PROXIED_TOKENS"
    # The world outside (family UpstreamFailed).
    UPSTREAM_UNAVAILABLE = "UPSTREAM_UNAVAILABLE"
    UPSTREAM_REFUSED = "UPSTREAM_REFUSED"
    UPSTREAM_ROOT_REFUSED = "UPSTREAM_ROOT_REFUSED"
    UPSTREAM_GRANT_MISMATCH = "UPSTREAM_GRANT_MISMATCH"
    PREVIOUS_ATTEMPT_LIVE = "PREVIOUS_ATTEMPT_LIVE"
    CREDENTIAL_USE_UNKNOWN = "CREDENTIAL_USE_UNKNOWN"
    # What an upstream has a fixed number of (family UpstreamExhausted).
    UPSTREAM_POOL_EXHAUSTED = "UPSTREAM_POOL_EXHAUSTED"
    # The broker itself (family NotReady).
    SHUTTING_DOWN = "SHUTTING_DOWN"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    COMMIT_UNKNOWN = "COMMIT_UNKNOWN"
    AUDIT_BACKLOG = "AUDIT_BACKLOG"
    WITNESS_BACKLOG = "WITNESS_BACKLOG"
    WITNESS_UNREAD = "WITNESS_UNREAD"
    RECOVERY_MODE = "RECOVERY_MODE"
    STREAM_TOO_OLD = "STREAM_TOO_OLD"
    CONNECTOR_ROOT_REFUSED = "CONNECTOR_ROOT_REFUSED"
    CONNECTOR_CIRCUIT_OPEN = "CONNECTOR_CIRCUIT_OPEN"
    REVOKER_STALLED = "REVOKER_STALLED"
    CLOCK_DOUBTED = "CLOCK_DOUBTED"
    LEDGER_FULL = "LEDGER_FULL"
    OWN_SVID_EXPIRED = "OWN_SVID_EXPIRED"
    ISSUER_KEYS_UNAVAILABLE = "ISSUER_KEYS_UNAVAILABLE"
    SITUATION_MOVED = "SITUATION_MOVED"
    DEPLOY_SET_OVERTAKEN = "DEPLOY_SET_OVERTAKEN"
    REPLICA_UNHEARD = "REPLICA_UNHEARD"
    # Told to operators only (/readyz, the log), never sent.
    OWN_SVID_OVERDUE = "OWN_SVID_OVERDUE"
    # Told by the client itself, never sent: no answer came that could be believed (family NotReady).
    BROKER_UNREACHABLE = "BROKER_UNREACHABLE"
    BROKER_BUNDLE_MISSING = "BROKER_BUNDLE_MISSING"
    BROKER_UNTRUSTED = "BROKER_UNTRUSTED"
    BROKER_NAME_MISMATCH = "BROKER_NAME_MISMATCH"
    CALL_TIMED_OUT = "CALL_TIMED_OUT"
    SEAL_BROKEN = "SEAL_BROKEN"
    IDENTITY_PROVIDER_UNREACHABLE = "IDENTITY_PROVIDER_UNREACHABLE"
    IDENTITY_PROVIDER_INVALID = "IDENTITY_PROVIDER_INVALID"
    # What was stored cannot be trusted (family Tampered).
    ROW_MAC_MISMATCH = "ROW_MAC_MISMATCH"
    AUDIT_CHAIN_BROKEN = "AUDIT_CHAIN_BROKEN"
    CHECKPOINT_INVALID = "CHECKPOINT_INVALID"
    SCHEMA_VERSION = "SCHEMA_VERSION"
    # A bug of ours (family Defect).
    ILLEGAL_TRANSITION = "ILLEGAL_TRANSITION"
    INTERNAL = "INTERNAL"


class BrokerError(Exception):
    """Base of every failure this broker explains to somebody.

    ``message`` says what was wrong and where; ``hint`` says what the caller can do next; every
    variable part of either also stands in ``metadata`` (lowerCamelCase keys), so that programs
    never parse prose. None of the three may ever carry a secret. ``retry_after`` is when asking again makes
    sense, in seconds, where that is known.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        hint: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.reason = reason
        self.message = message
        self.hint = hint
        self.metadata: dict[str, str] = dict(metadata or {})
        # What else the audit event of a refusal shall say. JSON, never sent to anybody.
        self.evidence: dict[str, Any] = {}

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()

    def __copy__(self) -> Self:
        """The same to tell somebody else: an exception object collects where it was raised."""
        made = type(self)(
            self.reason, self.message, hint=self.hint, metadata=self.metadata, retry_after=self.retry_after
        )
        made.evidence = dict(self.evidence)
        return made


class Unauthenticated(BrokerError):
    """Who is asking could not be established."""


class InvalidInput(BrokerError):
    """What was asked is not well formed, or is outside its template. Asking again alike is pointless."""


class Denied(BrokerError):
    """Well formed, but not allowed."""


class NotFound(BrokerError):
    """It does not exist, or the caller has no part in it: deliberately one answer."""


class Conflict(BrokerError):
    """The id is taken by something else, or by the same thing still under way."""


class WrongState(BrokerError):
    """It exists, but its state does not allow this any more."""


class Exhausted(BrokerError):
    """A quota or a rate is used up."""


class UpstreamFailed(BrokerError):
    """An upstream did not do what was asked. Every connector failure reaches its caller as this family.

    ``outcome_known`` is True only where the upstream *proved* that nothing was created; anything
    else counts as issued.  ``retry_after`` is what the upstream asked for, in seconds.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        outcome_known: bool = False,
        retry_after: float | None = None,
        hint: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(reason, message, hint=hint, metadata=metadata, retry_after=retry_after)
        self.outcome_known = outcome_known


class UpstreamExhausted(UpstreamFailed):
    """An upstream has no more of what there is a fixed number of; nothing was made."""


class NotReady(BrokerError):
    """The broker will not do this now; a retry later may succeed."""


class Tampered(BrokerError):
    """Stored state fails its own proof. Never used for a grant."""


class Defect(BrokerError):
    """A bug in the broker. The caller gets a request id, the log gets the rest."""
