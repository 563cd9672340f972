"""What botocore's failures prove about an AssumeRole, as the port's own error.

AWS error *codes* are a fixed vocabulary and are told; AWS messages are not, except the percentage of
a packed policy. An answer with a 4xx code proves that no session was made, and so does a request that
never left; the caller makes one try per call, so there is no earlier one that might have landed.
"""

from __future__ import annotations

import re

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

# What a call through botocore may raise; a reference to a key that cannot be read is among it.
FAILURES = (BotoCoreError, ClientError, ResponseParserError, BrokerError, OSError, ValueError)

_CODE = re.compile(r"[A-Za-z][A-Za-z0-9.]{0,63}\Z", re.ASCII)
_PERCENT = re.compile(r"(\d{1,4}) ?%|Packed size: (\d{1,4})", re.ASCII)
_OUR_CREDENTIALS = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
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
_BUSY = frozenset({"RequestLimitExceeded", "Throttling", "ThrottlingException", "TooManyRequestsException"})
_HINTS = {
    "AccessDenied": "Operators: the role's trust policy must let the broker do sts:AssumeRole, sts:TagSession and"
    " sts:SetSourceIdentity (and the broker's own policy too, across accounts).",
    "PackedPolicyTooLarge": "Ask for less at once; operators: fewer statements or shorter names in the template.",
    "MalformedPolicyDocument": "Operators: the template's actions, resources or conditions are not valid IAM policy.",
    "RegionDisabledException": "Operators: STS is switched off for this region in the account.",
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


def _answered(error: ClientError, connector: str, doing: str) -> UpstreamFailed:
    said = error.response.get("Error", {})
    code = str(said.get("Code", ""))
    code = code if _CODE.match(code) else "an unknown error"
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
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
    return _failed(failed, connector, reason, what, known=refused, hint=hint, metadata=metadata)


def _failed(
    failed: str,
    connector: str,
    reason: Reason,
    what: str,
    *,
    known: bool,
    hint: str,
    metadata: dict[str, str] | None = None,
) -> UpstreamFailed:
    return UpstreamFailed(
        reason,
        f"{failed}: {what}.",
        outcome_known=known,
        hint=hint,
        metadata={"connector": connector, **(metadata or {})},
    )
