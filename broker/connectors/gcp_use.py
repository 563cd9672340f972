"""Whether Cloud Storage takes a token: ask for at most one name of a bucket that operators named for it.

A call that touches nothing and that a disabled account, a token whose time is over and a boundary really refuse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from broker.connectors.gcp_http import GcpFailure
from broker.connectors.unknown_use import cannot_tell
from broker.lease.credential import Credential, GcpToken
from broker.ports import Use

if TYPE_CHECKING:
    from broker.connectors.gcp_upstream import GcpUpstream


def read_bucket(connector: str, credential: Credential, upstream: GcpUpstream) -> Use:
    """Blocks for one request. Raises UpstreamFailed (CREDENTIAL_USE_UNKNOWN)."""
    bucket = upstream.settings.canary_bucket
    if not isinstance(credential, GcpToken):
        raise cannot_tell(connector, f"a {type(credential).__name__} is no token of Google Cloud")
    if bucket is None:
        raise cannot_tell(connector, "its settings name no canary_bucket")
    url = f"https://storage.googleapis.com/storage/v1/b/{quote(bucket, safe='')}/o?maxResults=1&fields=items(name)"
    try:
        upstream.transport.json(url, credential.access_token.reveal())
    except GcpFailure as failure:
        # 401: over, or its account is disabled. 403: known, and may not. Another 4xx says nothing about the token.
        if failure.status in (401, 403):
            return Use.REFUSED
        what = failure.what
    else:
        return Use.WORKS
    raise cannot_tell(connector, what)
