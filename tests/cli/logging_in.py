"""People on the command line, without a browser: a cached token in a file, and a browser that follows redirects."""

from __future__ import annotations

import urllib.request
from threading import Thread

from broker.dev.identity_provider import CLIENT_ID
from tests.api.served import Served, private, token


def logged_in(served: Served, who: str) -> dict[str, str]:
    """The environment of one who is logged in, and whom the development provider need not ask who they are."""
    file = private(served.root / "people" / who, token(served, who))
    return {
        "BROKER_ADMIN_TOKEN_FILE": str(file),
        "BROKER_OIDC_ISSUER": served.identity_provider.url,
        "BROKER_OIDC_CLIENT_ID": CLIENT_ID,
        "BROKER_OIDC_LOGIN_HINT": who,
        "XDG_STATE_HOME": str(served.root / "state-of" / who),
        "DISPLAY": ":0",
    }


def visit(url: str) -> bool:
    """What a browser does with a provider that asks nothing: it goes where it is sent, back to the command."""
    Thread(target=lambda: urllib.request.urlopen(url).close(), daemon=True).start()
    return True
