"""The evaluator as a process: ``npm ci`` by the files beside this one, then node; requests in, verdicts out."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ACCOUNT, ROLE_ID = "123456789012", "AROAEXAMPLEEXAMPLE000"
ALLOWED, DENIED, NOT_ALLOWED = "Allowed", "ExplicitlyDenied", "ImplicitlyDenied"
_SECONDS = 300


def missing_programs() -> list[str]:
    """What has to be on the machine for any of this."""
    return [each for each in ("node", "npm") if shutil.which(each) is None]


def install() -> None:
    """Exactly the locked packages; done once, and again when the lock changes. No package runs a script of its own."""
    lock, done = HERE / "package-lock.json", HERE / "node_modules" / ".locked"
    if done.exists() and done.read_bytes() == lock.read_bytes():
        return
    command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    subprocess.run(command, cwd=HERE, check=True, timeout=_SECONDS, stdin=subprocess.DEVNULL)
    done.write_bytes(lock.read_bytes())


@dataclass(frozen=True)
class Request:
    """One request of one session, and the policies it is judged by. ``context`` adds condition keys, or replaces."""

    session_name: str
    action: str = "s3:GetObject"
    resource: str = "arn:aws:s3:::orders/2031/05/a.csv"
    role: str = "orders-reader"
    identity: Sequence[Any] = ()  # the role's
    session: Any = None
    boundary: Any = None
    on_resource: Any = None
    at: str = "2031-05-01T12:01:00Z"
    issued: str = "2031-05-01T12:00:00Z"
    context: Mapping[str, str] = field(default_factory=dict)

    def told(self) -> str:
        """As evaluate.mjs reads it."""
        context = {
            "aws:userid": f"{ROLE_ID}:{self.session_name}",
            "aws:TokenIssueTime": self.issued,
            "aws:CurrentTime": self.at,
            "aws:SourceIdentity": self.session_name,
            "aws:PrincipalArn": f"arn:aws:iam::{ACCOUNT}:role/{self.role}",
            **self.context,
        }
        return json.dumps(
            {
                "principal": f"arn:aws:sts::{ACCOUNT}:assumed-role/{self.role}/{self.session_name}",
                "action": self.action,
                "resource": self.resource,
                "account": ACCOUNT,
                "context": context,
                "identity": list(self.identity),
                "session": self.session,
                "boundary": self.boundary,
                "onResource": self.on_resource,
            }
        )


def judged(requests: Sequence[Request]) -> list[str]:
    """A verdict for each: Allowed, ExplicitlyDenied or ImplicitlyDenied."""
    told = "".join(f"{each.told()}\n" for each in requests)
    done = subprocess.run(
        ["node", "evaluate.mjs"], cwd=HERE, input=told, capture_output=True, text=True, check=True, timeout=_SECONDS
    )
    return done.stdout.splitlines()
