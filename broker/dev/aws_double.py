"""A double of AWS: moto's STS and IAM, on loopback, in a process of its own. It is not AWS.

moto answers the calls and checks their form. It does NOT enforce IAM: session policies, explicit
denies, source identities and expiry have no effect, so it proves plumbing and never scope. Whoever
shows it to a person says so: :data:`DISCLAIMER`. Everything in it is gone when it stops.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from broker.dev.files import private_directory, write_private
from broker.dev.loopback import LOOPBACK, free_port
from broker.dev.process import ServerProcess
from broker.dev.server import DevServer
from broker.secret import Secret

DISCLAIMER = (
    "AWS is played by moto here: it answers like STS and IAM but enforces no policy. "
    "The session policy is sent as to AWS; only AWS would hold the session to it."
)
REGION = "eu-central-1"
_BROKER_USER = "jit-broker"
_START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class AwsFacts:
    """Where the double is, the broker's own access key, and the roles by name. The key's secret is also in a file."""

    endpoint: str
    region: str
    account: str
    access_key_id: str
    secret_access_key: Secret
    secret_access_key_file: Path
    role_arns: dict[str, str]

    def client(self, service: str) -> Any:
        """A boto3 client for ``sts`` or ``iam`` with the broker's key; boto3's clients have no common type."""
        return _client(service, self.endpoint, self.access_key_id, self.secret_access_key)


class AwsDouble(DevServer[AwsFacts]):
    """moto's server with the IAM ``roles`` asked, its log and the broker's key under ``directory``."""

    what = "The double of AWS"

    def __init__(self, directory: Path, roles: Sequence[str]) -> None:
        directory = private_directory(directory)
        self._roles = tuple(roles)
        process = ServerProcess(
            "moto",
            directory,
            stop_signal=signal.SIGTERM,
            grace=2.0,
            environment={"PATH": os.defpath, "HOME": str(directory)},
        )
        super().__init__(directory, process)

    def start(self) -> AwsFacts:
        """Start it, make the broker's IAM user and the roles. Raises :class:`UpstreamFailed`."""
        self._process.stop_leftover()
        port = free_port(self._directory / "port")
        self._process.start([sys.executable, "-m", "moto.server", "-H", LOOPBACK, "-p", str(port)], cwd=self._directory)
        self._process.wait_until(lambda: _listens(port), within=_START_SECONDS)
        self._facts = self._populate(f"http://{LOOPBACK}:{port}")
        return self._facts

    def _populate(self, endpoint: str) -> AwsFacts:
        # moto takes any key until an account is told to be strict; these two words open nothing elsewhere.
        iam = _client("iam", endpoint, "double", Secret("double"))
        user = iam.create_user(UserName=_BROKER_USER)["User"]
        key = iam.create_access_key(UserName=_BROKER_USER)["AccessKey"]
        arns = {name: iam.create_role(**_role(name, user["Arn"]))["Role"]["Arn"] for name in self._roles}
        file = self._directory / "secret-access-key"
        write_private(file, key["SecretAccessKey"])
        account = str(user["Arn"]).split(":")[4]
        return AwsFacts(endpoint, REGION, account, key["AccessKeyId"], Secret(key["SecretAccessKey"]), file, arns)


def _role(name: str, broker_arn: str) -> dict[str, object]:
    """The role as an operator would make it: the trust policy grants exactly what the broker's call uses.

    Tags and a source identity need permissions of their own beside ``sts:AssumeRole`` (IAM User Guide,
    "Passing session tags" and "Monitor and control actions taken with assumed roles").
    """
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": broker_arn},
                "Action": ["sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"],
            }
        ],
    }
    return {"RoleName": name, "AssumeRolePolicyDocument": json.dumps(trust), "MaxSessionDuration": 3600}


def _client(service: str, endpoint: str, access_key_id: str, secret: Secret) -> Any:
    """A client that takes nothing from the environment: no proxy before loopback, no profile, no stray key."""
    session = boto3.session.Session(
        aws_access_key_id=access_key_id, aws_secret_access_key=secret.reveal(), region_name=REGION
    )
    config = Config(proxies={}, retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=10)
    return session.client(service, endpoint_url=endpoint, config=config)  # type: ignore[call-overload]


def _listens(port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1.0):
            return True
    except OSError:
        return False
