"""The admin API of MinIO, as far as a broker needs it, for its own user and no other. Blocking.

None of these calls needs an admin right: MinIO lets each user look at, and end, sessions of its own
(``cmd/admin-handlers-users.go``: ``RevokeTokens``, ``InfoAccessKey``, ``AccountInfoHandler``). Signing is
botocore's (SigV4, service ``s3``); each call is tried once: the ledger does the retrying.
"""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import urllib3
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSPreparedRequest, AWSRequest
from botocore.credentials import Credentials

from broker.connectors.aws_client import AwsKeys
from broker.connectors.vault_http import open_pool, retry_after_of
from broker.errors import BrokerError

_PREFIX = "/minio/admin/v3/"
_CODE = re.compile(r"[A-Za-z]{1,64}\Z", re.ASCII)
_LONGEST_ANSWER = 1 << 20
# What MinIO says to a user who asks for a session that is not there (or not one of its own).
_NOT_THERE = frozenset({(403, "AccessDenied"), (404, "XMinioAdminNoSuchAccessKey")})


class MinioFailure(Exception):
    """A call that did not do what it should have, without MinIO's own words."""

    def __init__(self, what: str, *, status: int = 0, retry_after: timedelta | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.status = status  # 0: there was no answer
        self.retry_after = retry_after

    @property
    def refuses_us(self) -> bool:
        """Whether it is the broker's own user that is refused."""
        return self.status in (401, 403)


class MinioAdmin:
    """Calls for ``threads`` threads; ``timeout`` (seconds) is for connecting and for each read."""

    def __init__(self, keys: AwsKeys, region: str, *, timeout: float, threads: int, ca_file: str | None) -> None:
        self._keys = keys
        self._region = region
        self._timeout = timeout
        self._http = open_pool(threads, ca_file)

    def revoke(self, node: str, user: str, revoke_type: str) -> None:
        """End every session of ``user`` with this revoke type that ``node`` knows. Raises MinioFailure unless done."""
        query = {"user": user, "tokenRevokeType": revoke_type}
        status, code, _ = self._call("POST", node, "revoke-tokens/builtin", query)
        if status != 204:
            raise _answered(status, code)

    def holds(self, node: str, access_key: str) -> bool:
        """Whether ``node`` knows this session of the broker's own user; it looks on its disks, too.

        That makes it know a session from before its last start: it reads those only when somebody asks for them.
        """
        status, code, _ = self._call("GET", node, "info-access-key", {"accessKey": access_key})
        if status == 200:
            return True
        if (status, code) in _NOT_THERE:
            return False
        raise _answered(status, code)

    def account(self, node: str) -> Mapping[str, Any]:
        """``AccountName`` and ``Policy`` of the broker's own user, and more."""
        status, code, body = self._call("GET", node, "accountinfo", {})
        if status != 200:
            raise _answered(status, code)
        return body

    def close(self) -> None:
        """Close the connections."""
        self._http.clear()

    def _call(self, method: str, node: str, name: str, query: Mapping[str, str]) -> tuple[int, str, Mapping[str, Any]]:
        """Status, error code (empty if there is none), and the JSON object that was answered, if it is one."""
        try:
            signed = self._signed(method, node.rstrip("/") + _PREFIX + name, query)
            answer = self._http.request(
                method, signed.url, headers=dict(signed.headers), timeout=self._timeout, redirect=False
            )
        except BrokerError:
            raise MinioFailure("the broker's own MinIO key cannot be had", status=401) from None
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
            raise MinioFailure(f"no usable answer ({type(error).__name__})") from None
        status = answer.status
        if status in (429, 503):
            wait = retry_after_of(answer.headers)
            raise MinioFailure(f"it is busy (HTTP {status})", status=status, retry_after=wait)
        body = _object(answer.data)
        code = body.get("Code")
        return status, code if isinstance(code, str) and _CODE.match(code) else "", body

    def _signed(self, method: str, url: str, query: Mapping[str, str]) -> AWSPreparedRequest:
        request = AWSRequest(method, url, params=dict(query))
        keys = Credentials(self._keys.access_key_id().reveal(), self._keys.secret_access_key().reveal())
        S3SigV4Auth(keys, "s3", self._region).add_auth(request)
        return request.prepare()


def _object(text: bytes) -> Mapping[str, Any]:
    if len(text) > _LONGEST_ANSWER:
        return {}
    try:
        body = json.loads(text)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _answered(status: int, code: str) -> MinioFailure:
    return MinioFailure(f"it answered HTTP {status}{code and f' {code}'}", status=status)
