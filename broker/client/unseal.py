"""Asking for a credential that only this process can read, and opening what comes.

Belongs here: believing an answer only if it is what was asked for. A credential in clear, one sealed for
another lease or holder, or one that our key does not open, was changed on its way.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

from broker.api.v1 import credential_pb2
from broker.api.v1.broker_service_pb2 import RequestCredentialResponse
from broker.lease.sealing import Recipient, Sealed, SealedTo, broken_seal


def unsealed(
    answer: RequestCredentialResponse, recipient: Recipient, holder: str, request_id: str
) -> RequestCredentialResponse:
    """``answer`` with its credential in clear. Raises :class:`NotReady` (SEAL_BROKEN).

    ``holder`` and ``request_id`` are what *we* know of ourselves and our request, not what the answer says.
    """
    if answer.HasField("credential"):
        raise broken_seal("it came in clear")
    if not answer.HasField("sealed_credential"):
        raise broken_seal("there is none in the answer")
    came = answer.sealed_credential
    to = SealedTo(answer.lease.id, answer.lease.attempt_id, holder, request_id)
    plaintext = recipient.open(came.suite, Sealed(came.encapsulated_key, came.ciphertext), to)
    try:
        credential = credential_pb2.Credential.FromString(plaintext)
    except DecodeError:
        raise broken_seal("what was sealed is no credential") from None
    return RequestCredentialResponse(decision=answer.decision, lease=answer.lease, credential=credential)
