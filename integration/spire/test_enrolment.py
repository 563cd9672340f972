"""Who is enrolled gets a credential, by SDK and by command line; who is not gets none, and is told why."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from broker.dev.orders import ADMINISTRATOR
from broker.dev.postgres import SUPERUSER
from broker.errors import Reason
from integration.spire.brokers import Broker
from integration.spire.domain import Spire
from integration.spire.programs import Program
from integration.spire.upstreams import ASKED, LOGS_IN, Upstreams


@pytest.fixture(scope="module")
def reconciler(spire: Spire, agent_program: Callable[[str], Program]) -> Program:
    program = agent_program("reconciler")
    spire.enrol("/agent/reconciler", program)
    return program


def test_an_enrolled_agent_logs_in_to_postgresql_with_what_the_sdk_got(
    reconciler: Program, spire: Spire, upstreams: Upstreams
) -> None:
    told = reconciler.run("login")
    assert told["spiffeId"] == spire.id("/agent/reconciler")
    assert told["orders"] and told["leases"] == ["REVOKED"], told
    assert told["login"] not in {SUPERUSER, ADMINISTRATOR, *upstreams.logins()}


def test_and_with_what_the_command_line_got(reconciler: Program, upstreams: Upstreams) -> None:
    done = reconciler.broker("exec", *ASKED, "--ttl", "5m", "--", str(reconciler.path), "-c", LOGS_IN)
    assert done.returncode == 0, done.stderr
    login, orders = done.stdout.split()
    assert int(orders) > 0
    assert login not in {SUPERUSER, ADMINISTRATOR, *upstreams.logins()}


def test_every_step_of_the_doctor_is_fine(reconciler: Program) -> None:
    done = reconciler.broker("doctor", "identity", "--format", "json")
    assert done.returncode == 0, done.stdout
    assert all(step["ok"] for step in json.loads(done.stdout))


def test_the_same_code_from_another_path_gets_nothing_and_the_doctor_says_why(
    reconciler: Program, agent_program: Callable[[str], Program], upstreams: Upstreams, broker: Broker
) -> None:
    """One account, one interpreter byte for byte, the same SPIRE socket: only the path differs."""
    impostor = agent_program("impostor")
    assert impostor.path.read_bytes() == reconciler.path.read_bytes()
    before = upstreams.logins()
    refused = impostor.broker("exec", *ASKED, "--ttl", "5m", "--", str(impostor.path), "-c", LOGS_IN)
    assert (refused.returncode, refused.stdout) == (3, "")
    assert Reason.SVID_MISSING in refused.stderr and "no identity issued" in refused.stderr
    examined = impostor.broker("doctor", "--format", "json")
    assert examined.returncode == 1
    endpoint, svid = json.loads(examined.stdout)
    assert endpoint["ok"] is True
    assert (svid["step"], svid["ok"], svid["reason"]) == ("SVID", False, Reason.SVID_MISSING)
    assert "no identity issued" in svid["detail"] and "registered" in svid["hint"]
    assert upstreams.logins() == before


def test_jobs_are_let_in_by_the_form_of_their_id_and_no_further(
    spire: Spire, agent_program: Callable[[str], Program]
) -> None:
    """One registry entry stands for every job of the namespaces it lists, whatever else SPIRE enrols."""
    ours, other = agent_program("payments-job"), agent_program("hr-job")
    spire.enrol("/ns/payments/job/nightly", ours)
    spire.enrol("/ns/hr/job/nightly", other)
    who = ours.broker("whoami")
    assert who.returncode == 0 and spire.id("/ns/payments/job/nightly") in who.stdout, who.stderr
    refused = other.broker("whoami")
    assert refused.returncode == 3 and Reason.AGENT_NOT_REGISTERED in refused.stderr, refused.stderr
