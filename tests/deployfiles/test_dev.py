"""What deploy/dev promises: the demo's agents, and what the starter policies say to each."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker.deployfiles import load
from broker.deployfiles.models import QuotasEntry
from broker.identity.agent import Tier
from broker.identity.spiffe_id import SpiffeId
from broker.lease.credential import ContractClass
from broker.policy.decision import Decision, Effect
from broker.policy.facts import RequestFacts
from broker.ports.deploys import DeploySet
from broker.scope.bind import bind
from broker.scope.request import AccessRequest
from tests.connectors.fake import contract
from tests.deployfiles.test_broken import private_copy

NOW = datetime(2026, 11, 21, 8, tzinfo=UTC)
EVERYTHING = {"intent": "look", "reason": "because", "ticket": "T-1", "plan": "read, and change"}


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> DeploySet:
    source = Path(__file__).parents[2] / "deploy/dev"
    return load(private_copy(source, tmp_path_factory.mktemp("dev") / "set"))


def ask(
    dev: DeploySet,
    who: str,
    template: str,
    environment: str = "dev",
    ttl: int = 60,
    cls: ContractClass = ContractClass.IMMEDIATE,
    **claims: str,
) -> Decision:
    reports = template.startswith("reports-")
    request = AccessRequest(
        request_id="r",
        template=template,
        task_id="t",
        account="123456789012" if template == "reports-read" else "dev",
        environment=environment,
        resource="orders-reports" if reports else "orders",
        ttl=timedelta(seconds=ttl),
        parameters={"day": "daily/2026-11-20"} if reports and not template.endswith("-canary") else {},
        **(claims or EVERYTHING),
    )
    agent = dev.registry.find(SpiffeId.parse(f"spiffe://dev.broker.internal/agent/{who}"))
    scope = bind(dev.templates[template], request)
    return dev.policies.decide(RequestFacts(agent, request, scope, contract(cls), NOW))


def test_the_set_is_what_the_demo_needs(dev: DeploySet) -> None:
    tiers = {agent.spiffe_id.path.removeprefix("/agent/"): agent.tier for agent in dev.registry}
    assert tiers == {
        "analyst": Tier.ADVISORY,
        "executor": Tier.AUTONOMOUS,
        "migrator": Tier.AUTONOMOUS,
        "other": Tier.ADVISORY,
        "planner": Tier.ADVISORY,
        "releaser": Tier.SEMI_AUTONOMOUS,
        "reporter": Tier.AUTONOMOUS,
        "validator": Tier.ADVISORY,
    }
    assert dev.templates.keys() == {
        "orders-production",
        "orders-readonly",
        "orders-readwrite",
        "reports-read",
        "reports-s3",
        "reports-s3-canary",
    }
    assert {name: spec.kind for name, spec in dev.connectors.items()} == {
        "openbao-orders": "vault-database",
        "aws": "aws-sts",
        "minio": "minio-sts",
    }


@pytest.mark.parametrize(
    ("who", "template", "environment", "ttl"),
    [
        ("analyst", "orders-readonly", "dev", 900),
        ("analyst", "orders-readonly", "staging", 60),
        ("other", "orders-readonly", "dev", 60),
        ("migrator", "orders-readonly", "dev", 60),
        ("migrator", "orders-readwrite", "dev", 300),
        ("reporter", "reports-read", "dev", 300),
        ("analyst", "reports-read", "dev", 600),
        ("reporter", "reports-s3", "dev", 300),
    ],
)
def test_ordinary_work_goes_through(dev: DeploySet, who: str, template: str, environment: str, ttl: int) -> None:
    decision = ask(dev, who, template, environment, ttl)
    assert decision.allowed, decision
    assert decision.policies
    assert decision.explanations


@pytest.mark.parametrize(
    ("who", "template", "environment", "ttl", "policies"),
    [
        # Every one of these is inside its template: only policy says no.
        ("analyst", "orders-readwrite", "dev", 60, ("advisory-never-changes",)),
        ("migrator", "orders-readwrite", "staging", 60, ()),  # not in the agent's environments: default deny
        ("migrator", "orders-readonly", "staging", 60, ()),
        ("other", "orders-readonly", "staging", 60, ()),
        ("migrator", "orders-readwrite", "dev", 301, ("autonomous-five-minutes",)),
        ("reporter", "reports-read", "dev", 301, ("autonomous-five-minutes",)),
        ("reporter", "orders-readwrite", "dev", 60, ()),
        ("reporter", "orders-readwrite", "dev", 600, ("autonomous-five-minutes",)),
        ("reporter", "reports-s3-canary", "dev", 60, ("a-canarys-template-is-for-canaries",)),
    ],
)
def test_what_templates_alone_would_allow_policy_refuses_with_a_reason(
    dev: DeploySet, who: str, template: str, environment: str, ttl: int, policies: tuple[str, ...]
) -> None:
    decision = ask(dev, who, template, environment, ttl)
    assert not decision.allowed
    assert decision.errors == ()
    assert decision.policies == policies
    assert len(decision.explanations) == max(1, len(policies))


def test_a_credential_that_cannot_be_ended_is_refused(dev: DeploySet) -> None:
    decision = ask(dev, "analyst", "orders-readonly", cls=ContractClass.STATIC)
    assert (decision.effect, decision.policies) == (Effect.DENY, ())
    assert "rotation" in decision.explanations[0]


def test_production_is_written_only_with_the_yes_of_people(dev: DeploySet) -> None:
    decision = ask(dev, "releaser", "orders-production", "production", 60)
    assert (decision.effect, decision.approvals) == (Effect.NEEDS_APPROVAL, ("production-change",))
    # Somebody who is not the owner of the agent can give it.
    (quorum,) = dev.approvals["production-change"].any_of
    owner = dev.registry.find(SpiffeId.parse("spiffe://dev.broker.internal/agent/releaser")).owner
    others = [each for each in dev.people.values() if quorum.group in each.groups and each != owner]
    assert len(others) >= quorum.people


def test_every_starter_policy_explains_itself(dev: DeploySet) -> None:
    texts = [path.read_text() for path in (Path(__file__).parents[2] / "deploy/dev/policies").glob("*.cedar")]
    count = sum(text.count("@id(") for text in texts)
    assert count == sum(text.count("@reason(") for text in texts) == len(dev.policies) == 19


def test_autonomous_agents_hold_less_than_others_and_ask_no_faster_than_is_allowed(dev: DeploySet) -> None:
    (quota,) = [each for each in dev.quotas if Tier.AUTONOMOUS in each.tiers]
    assert quota.tiers == {Tier.AUTONOMOUS}
    assert quota.live_leases is not None
    assert quota.rate is not None
    assert quota.live_leases < QuotasEntry().live_leases  # what an agent may hold whose file says nothing


@pytest.mark.parametrize(
    ("more", "same"),
    [
        ("", True),
        ("on_policy_change: revoke\n", True),
        ("max_delegation_depth: 0\n", False),
        ("wrapping: refused\n", True),
        ("wrapping: allowed\n", False),
    ],
)
def test_what_plans_and_approvals_are_bound_to_is_what_a_template_lets_its_holder_do(
    dev: DeploySet, tmp_path: Path, more: str, same: bool
) -> None:
    """Not what becomes of leases that are out already; and a field that is not used changes nothing."""
    source = private_copy(Path(__file__).parents[2] / "deploy/dev", tmp_path / "set")
    path = source / "templates" / "orders-readonly.yaml"
    path.write_text(path.read_text() + more)
    assert (load(source).templates["orders-readonly"].digest == dev.templates["orders-readonly"].digest) is same
