"""``docs/identity.md``, from its top: after each section, what it promised is so."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from broker.dev.loopback import LOOPBACK, free_port
from broker.errors import Reason
from integration.spire.brokers import PARTNER, Broker
from integration.spire.domain import Spire
from integration.spire.page import PAGE, Operators, at_socket, broker_command
from integration.spire.upstreams import Upstreams
from tests.patience import until


def test_an_operator_who_does_what_the_page_says_gets_what_it_says(
    directory: Path, spire: Spire, partner: Spire, upstreams: Upstreams
) -> None:
    program = spire.program("page-broker")
    broker = Broker(directory / "page", [str(program.path), "-m", "broker.daemon"], upstreams.environment())
    agent = spire.program("page-agent", {"BROKER_ADDRESS": broker.address})
    theirs = {"spire-server": at_socket(partner.server.binary, partner.server.socket)}
    ours = {"spire-server": at_socket(spire.server.binary, spire.server.socket)}
    operators = Operators(
        directory / "page-operators",
        broker.deploy,
        {
            "/usr/local/bin/brokerd": str(program.path),
            "/opt/reconciler/bin/python": str(agent.path),
            "/etc/jit-broker/brokerd.yaml": str(broker.config),
            "/run/spire/agent/public/api.sock": str(spire.agent.socket),
            "0.0.0.0:8443": broker.address,
            "0.0.0.0:8444": f"{LOOPBACK}:{free_port()}",
            "127.0.0.1:9443": broker.operations,
        },
        {
            "": {**ours, "broker": broker_command(sys.executable, upstreams.environment())},
            "agent": {"broker": broker_command(str(agent.path), agent.environment)},
            PARTNER: theirs,
        },
    )

    def restart() -> None:
        broker.stop()
        broker.configure(**operators.configuration)
        broker.start()

    try:
        operators.carry_out("The broker itself")
        program.run("svid")
        (broker.deploy / "agents" / "reconciler.yaml").unlink()
        restart()
        # Its last word is a doctor who finds nothing.
        operators.carry_out("An agent")

        with agent.until_refused() as leaving:
            operators.carry_out("Letting an agent go")
            assert leaving.refused()["reason"] == Reason.AGENT_DENIED

        assert PARTNER not in broker.metrics()
        operators.carry_out("Federation: agents of another trust domain")
        restart()
        # SPIRE's agents hear of a changed entry within seconds, and the broker from them.
        until(lambda: f'broker_bundle_roots{{trust_domain="{PARTNER}"}} 1.0' in broker.metrics().splitlines())

        operators.carry_out("Agents behind a proxy that ends TLS")
        restart()
    finally:
        broker.stop()


def test_the_page_explains_every_reason_that_is_about_identity() -> None:
    about_identity = re.compile(r"(JWT_|OWN_)?SVID_|AGENT_(?!ROLE_)|PROXY_|BROKER_")
    reasons = {reason for reason in Reason if about_identity.match(reason)}
    assert len(reasons) > 20
    assert {reason for reason in reasons if f"`{reason}`" not in PAGE.read_text()} == set()
