"""Using a service account's token as its holder would: asking Kubernetes whose it is, which everybody may."""

from __future__ import annotations

import http.client
import json
import ssl
from urllib.parse import urlsplit

from broker.connectors.unknown_use import cannot_tell
from broker.lease.credential import Credential, KubernetesToken
from broker.ports.connectors import Use

_PATH = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
_ASKED = json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"})


def ask_who_i_am(connector: str, credential: Credential, timeout: float) -> Use:
    """WORKS where Kubernetes knows whose it is, REFUSED where it knows nobody (401); blocks. Raises UpstreamFailed."""
    if not isinstance(credential, KubernetesToken):
        raise cannot_tell(connector, "it is no token of Kubernetes")
    try:
        status = _status(credential, timeout)
    except (OSError, ValueError, http.client.HTTPException) as error:
        why = f"Kubernetes gave no answer ({type(error).__name__})"
    else:
        if status == 401:
            return Use.REFUSED
        if 200 <= status < 300 or status == 403:  # it is known who asks, and what they may not
            return Use.WORKS
        why = f"Kubernetes answered {status}"
    raise cannot_tell(connector, why)


def _status(credential: KubernetesToken, timeout: float) -> int:
    where = urlsplit(credential.server)
    context = ssl.create_default_context(cadata=credential.cluster_ca)
    # What Python 3.13 asks for beyond that, authorities of older clusters have not; who uses the token does not ask.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    connection = http.client.HTTPSConnection(where.hostname or "", where.port, timeout=timeout, context=context)
    headers = {"Authorization": f"Bearer {credential.token.reveal()}", "Content-Type": "application/json"}
    try:
        connection.request("POST", where.path.rstrip("/") + _PATH, _ASKED, headers)
        return connection.getresponse().status
    finally:
        connection.close()
