"""What a refused request named, freed from the wire, for whoever watches refusals.

Only of a request that was read and passed its field rules: every text has its bound by then.
"""

from __future__ import annotations

from google.protobuf.message import Message

from broker.issuance.escalation import Named
from broker.ports.leases import NamedIds

# Between the parts of a resource; no field rule lets it into one of them unescaped in a way that matters here.
_BETWEEN = "\x1f"


def named_by(request: Message | None) -> Named:
    """Whatever ``request`` has of the fields that matter."""
    if request is None:
        return Named()
    resource = _BETWEEN.join(_text(request, name) for name in ("account", "environment", "resource"))
    return Named(
        request_id=_text(request, "request_id"),
        template=_text(request, "template"),
        resource=resource,
        ids=NamedIds(*(_text(request, name) for name in NamedIds._fields)),
    )


def _text(request: Message, name: str) -> str:
    value = getattr(request, name, "")
    return value if isinstance(value, str) else ""
