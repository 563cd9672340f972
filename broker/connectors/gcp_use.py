"""Whether Cloud Storage takes a token: ask for one name of what it was made for, or of a bucket for canaries.

A call that touches nothing and that a disabled account and a token whose time is over really refuse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from broker.connectors.gcp_boundary import Place, first_place
from broker.connectors.gcp_http import GcpFailure
from broker.connectors.unknown_use import cannot_tell
from broker.lease.credential import Credential, GcpToken
from broker.ports.connectors import Use
from broker.scope.model import Scope

if TYPE_CHECKING:
    from broker.connectors.gcp_upstream import GcpUpstream


def read_storage(connector: str, credential: Credential, scope: Scope, upstream: GcpUpstream) -> Use:
    """Blocks for one request. Raises UpstreamFailed (CREDENTIAL_USE_UNKNOWN), InvalidInput."""
    if not isinstance(credential, GcpToken):
        raise cannot_tell(connector, f"a {type(credential).__name__} is no token of Google Cloud")
    bucket = upstream.settings.canary_bucket
    place = first_place(scope) or (None if bucket is None else Place(bucket))
    if place is None:
        raise cannot_tell(connector, "its settings name no canary_bucket, and the template has no boundary")
    try:
        upstream.transport.json(_url(place), credential.access_token.reveal())
    except GcpFailure as failure:
        # 401: over, or its account is disabled. 403: known, and may not.
        if failure.status in (401, 403):
            return Use.REFUSED
        # An object that is not there is told to who may read it. Another 4xx says nothing about the token.
        if failure.not_there and place.object:
            return Use.WORKS
        what = failure.what
    else:
        return Use.WORKS
    raise cannot_tell(connector, what)


def _url(place: Place) -> str:
    url = f"https://storage.googleapis.com/storage/v1/b/{quote(place.bucket, safe='')}/o"
    if place.object:
        return f"{url}/{quote(place.object, safe='')}?fields=name"
    return f"{url}?maxResults=1&fields=items(name)&prefix={quote(place.below, safe='')}"
