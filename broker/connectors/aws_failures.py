"""What botocore's failures prove about an AssumeRole, as the port's own error.

AWS error *codes* are a fixed vocabulary and are told; AWS messages are not, except the percentage of
a packed policy. An answer with a 4xx code proves that no session was made, and so does a request that
never left; the caller makes one try per call, so there is no earlier one that might have landed.
"""

from __future__ import annotations

import re
from datetime import timedelta

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    InvalidRegionError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    UnsupportedSignatureVersionError,
)
from botocore.parsers import ResponseParserError

from broker.errors import BrokerError, Reason, UpstreamFailed
from broker.ports.connectors import NotYet, Refused

# What a call through botocore may raise; a reference to a key that cannot be read is among it, and what its parsers
# raise over an answer that is well-formed and somebody else's (KeyError over a page of HTML that happens to be XML).
FAILURES = (
    BotoCoreError,
    ClientError,
    ResponseParserError,
    BrokerError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
)

_CODE = re.compile(r"[A-Za-z][A-Za-z0-9.]{0,63}\Z", re.ASCII)
_PERCENT = re.compile(r"(\d{1,4}) ?%|Packed size: (\d{1,4})", re.ASCII)
_OUR_CREDENTIALS = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "IDPRejectedClaim",
        "IncompleteSignature",
        "InvalidIdentityToken",
        "InvalidClientTokenId",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "NotAuthorized",
        "OptInRequired",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_BUSY = frozenset(
    {
        "ConcurrentModification",
        "IDPCommunicationError",
        "RequestLimitExceeded",
        "ServiceFailure",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_BASE_SESSION = "AssumeRoleWithWebIdentity"
_SECONDS = re.compile(r"[0-9]{1,5}\Z", re.ASCII)
_HINTS = {
    "AccessDenied": "Operators: is the role there, in this account, by this name (AWS does not tell)? The role's"
    " trust policy must let the broker do sts:AssumeRole, sts:TagSession and"
    " sts:SetSourceIdentity (and the broker's own policy too, across accounts).",
    "PackedPolicyTooLarge": "Ask for less at once; operators: fewer statements or shorter names in the template.",
    "MalformedPolicyDocument": "Operators: the template's actions, resources or conditions are not valid IAM policy.",
    "RegionDisabledException": "Operators: STS is switched off for this region in the account; switch it on under"
    " IAM, Account settings, or set another region in connectors.yaml.",
    "ValidationError": "Operators: is the role's MaxSessionDuration below an hour, or does another endpoint than AWS"
    " answer, with other limits?",
    "NoSuchEntity": "Operators: the role is not there; look at role_name in the template, and at the account.",
    "LimitExceeded": "Operators: the role's inline policies are full (10,240 characters); make some of them managed.",
    "UnmodifiableEntity": "Operators: only the AWS service that owns this role may change it.",
}
_NOT_SENT = (
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    InvalidRegionError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    UnsupportedSignatureVersionError,
)


def half_answered(connector: str, name: str) -> UpstreamFailed:
    """STS said yes, and ``name`` of its answer cannot be used: what it made is not known."""
    return UpstreamFailed(
        Reason.UPSTREAM_UNAVAILABLE,
        f"{connector} said success, but {name} is missing or malformed.",
        hint="Retry later with the same request_id.",
        metadata={"connector": connector},
    )


def told(error: Exception, connector: str, doing: str = "assume the role") -> UpstreamFailed:
    """The failure in the port's words, free of the upstream's text. ``doing``: what was wanted, after "could not"."""
    if isinstance(error, ClientError):
        return _answered(error, connector, doing)
    if isinstance(error, BrokerError | NoCredentialsError | PartialCredentialsError | CredentialRetrievalError):
        return _failed(
            f"{connector} could not {doing}",
            connector,
            Reason.UPSTREAM_ROOT_REFUSED,
            f"the broker's own AWS credentials cannot be had ({type(error).__name__})",
            known=True,
            hint="Operators: check the references in the connector's file, or the default credential chain.",
        )
    return _failed(
        f"{connector} could not {doing}",
        connector,
        Reason.UPSTREAM_UNAVAILABLE,
        f"no usable answer ({type(error).__name__})",
        known=isinstance(error, _NOT_SENT),
        hint="Retry later with the same request_id.",
    )


def not_ended(error: Exception, connector: str, doing: str) -> NotYet | Refused:
    """The same for a revocation: nothing is proven ended. A right that is missing on one role is no word about all."""
    failure = told(error, connector, doing)
    if failure.reason is Reason.UPSTREAM_ROOT_REFUSED:
        return Refused(f"{failure.message} {failure.hint}".strip())
    return NotYet(f"{failure.message} {failure.hint}".strip(), _retry_after(error))


def code_of(error: Exception) -> str:
    """The code that AWS answered, without the suffix that some of its services add; empty for no answer."""
    if not isinstance(error, ClientError):
        return ""
    code = str(error.response.get("Error", {}).get("Code", ""))
    return code.removesuffix("Exception") if code != "RegionDisabledException" else code


def _retry_after(error: Exception) -> timedelta | None:
    """What the answer says in Retry-After; a few seconds where AWS is busy and does not say."""
    busy = code_of(error) in {each.removesuffix("Exception") for each in _BUSY}
    return _said(error) or (timedelta(seconds=5) if busy else None)


def _said(error: Exception) -> timedelta | None:
    if not isinstance(error, ClientError):
        return None
    header = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("retry-after", "")
    return timedelta(seconds=int(header)) if _SECONDS.match(header) else None


def _answered(error: ClientError, connector: str, doing: str) -> UpstreamFailed:
    said = error.response.get("Error", {})
    code = str(said.get("Code", ""))
    code = code if _CODE.match(code) else "an unknown error"
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if error.operation_name == _BASE_SESSION and code not in _BUSY:
        return _failed(
            f"{connector} could not {doing}",
            connector,
            Reason.UPSTREAM_ROOT_REFUSED,
            f"STS gave the broker no session for its own JWT-SVID, it answered {code}",
            known=True,
            hint="Operators: the identity provider in IAM must have the trust domain's issuer and this audience, and"
            " the trust policy of web_identity.role_arn must name the broker's SPIFFE ID as its sub.",
            metadata={"code": code, "status": str(status)},
        )
    refused = isinstance(status, int) and 400 <= status < 500
    metadata = {"code": code, "status": str(status)}
    what = f"it answered {code}"
    if code == "PackedPolicyTooLarge" and (percent := _PERCENT.search(str(said.get("Message", "")))):
        metadata["packedPercent"] = percent[1] or percent[2]
        what += f": policy and tags come to {metadata['packedPercent']} % of what STS can pack"
    if code in _OUR_CREDENTIALS:
        reason, hint = Reason.UPSTREAM_ROOT_REFUSED, "Operators: the broker's own AWS credentials are refused."
    elif refused and code not in _BUSY:
        reason, hint = (
            Reason.UPSTREAM_REFUSED,
            _HINTS.get(code, "Operators: look the code up in the STS API reference."),
        )
    else:
        reason, hint = Reason.UPSTREAM_UNAVAILABLE, "Retry later with the same request_id."
    failed = f"{connector} could not {doing}"
    told_to_wait = _said(error)
    return _failed(failed, connector, reason, what, known=refused, hint=hint, metadata=metadata, wait=told_to_wait)


def _failed(
    failed: str,
    connector: str,
    reason: Reason,
    what: str,
    *,
    known: bool,
    hint: str,
    metadata: dict[str, str] | None = None,
    wait: timedelta | None = None,
) -> UpstreamFailed:
    return UpstreamFailed(
        reason,
        f"{failed}: {what}.",
        outcome_known=known,
        retry_after=None if wait is None else wait.total_seconds(),
        hint=hint,
        metadata={"connector": connector, **(metadata or {})},
    )
