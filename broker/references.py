"""References to secrets: ``file:PATH`` or ``env:NAME``, resolved at every use, so that rotation works.

What operators write in their files is where a secret is, never the secret.
"""

from __future__ import annotations

import os
from pathlib import Path

from broker.errors import InvalidInput, Reason
from broker.files.guarded import Unfit, read_bytes
from broker.secret import Secret

_MAX_BYTES = 64 * 1024


def resolve(reference: str) -> Secret:
    """What ``reference`` refers to now, without a final newline.

    Raises :class:`InvalidInput` (CONFIG_INVALID): unknown scheme, unset or empty, unreadable, or a
    file that group or others may read. Safe from any thread.
    """
    scheme, _, rest = reference.partition(":")
    if scheme == "env" and rest:
        value = os.environ.get(rest, "")
    elif scheme == "file" and rest:
        try:
            value = read_bytes(Path(rest), private=True, at_most=_MAX_BYTES).decode("utf-8")
        except Unfit as unfit:
            raise _refused(reference, str(unfit)) from None
        except UnicodeDecodeError:
            raise _refused(reference, "is not UTF-8 text") from None
    else:
        # The text is not told: somebody may have written the secret itself here.
        raise _refused("a reference", "is neither file:PATH nor env:NAME")
    value = value.removesuffix("\n").removesuffix("\r")
    if not value:
        raise _refused(reference, "is empty or not set")
    return Secret(value)


def _refused(what: str, why: str) -> InvalidInput:
    return InvalidInput(
        Reason.CONFIG_INVALID,
        f"{what} {why}.",
        hint="Secrets are given by reference: file:PATH (mode 0600) or env:NAME.",
        metadata={"reference": what},
    )
