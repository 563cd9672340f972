"""Shadow policies say what they would, and can neither allow nor deny anything."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.audit.record import decode
from broker.deployfiles import load
from broker.deployfiles.load import policy_schema
from broker.errors import Denied, NotReady, Reason
from broker.files import Problems
from broker.metrics import Metrics
from broker.policy.cedar import PolicyProblems, PolicySet
from broker.policy.decision import Decision, Effect
from broker.policy.shadow import ShadowPolicies, ShadowVerdict, Would
from broker.scope.model import AccessClass
from tests.deployfiles.test_broken import HERE, private_copy
from tests.issuance.world import World
from tests.policy.test_errors import VALID
from tests.policy.test_gates import gate
from tests.policy.world import PERMIT_ALL, SCHEMA, facts, policies

PERMIT = '@id("s-permit") permit (principal, action, resource);'
FORBID = '@id("s-forbid") @reason("no") forbid (principal, action, resource);'
FAILS = (
    f'@id("s-fails") @reason("no") forbid (principal, action, resource) when {{ {VALID["a sum that does not fit"]} }};'
)
NOTHING = '@id("nothing") @reason("no") forbid (principal, action, resource);'


def shadow(text: str, enforced: str = "") -> ShadowPolicies:
    return ShadowPolicies.parse({"shadow_policies/s.cedar": text}, {"policies/p.cedar": enforced}, SCHEMA)


def verdict(text: str, enforced: str) -> ShadowVerdict:
    return shadow(text, enforced).verdict(facts(), policies(enforced).decide(facts()))


@pytest.mark.parametrize(
    ("text", "enforced", "expected"),
    [
        (FORBID, PERMIT_ALL, ShadowVerdict(Would.WOULD_DENY, ("s-forbid",), True)),
        (PERMIT, "", ShadowVerdict(Would.WOULD_ALLOW, ("s-permit",), True)),
        (PERMIT, PERMIT_ALL, ShadowVerdict(Would.WOULD_ALLOW, ("s-permit",), False)),
        (PERMIT, NOTHING, ShadowVerdict(Would.WOULD_DENY, (), False)),
        (gate("owners", name="s"), PERMIT_ALL, ShadowVerdict(Would.WOULD_NEED_APPROVAL, ("s-gate",), True)),
        (FAILS, PERMIT_ALL, ShadowVerdict(Would.WOULD_FAIL, ("s-fails",), True)),
        (FAILS + PERMIT, PERMIT_ALL, ShadowVerdict(Would.WOULD_FAIL, ("s-fails",), True)),
        (FORBID, "", ShadowVerdict(Would.WOULD_DENY, ("s-forbid",), False)),
        (FORBID + PERMIT, "", ShadowVerdict(Would.WOULD_DENY, ("s-forbid",), False)),
        (PERMIT + PERMIT.replace("s-", "r-"), "", ShadowVerdict(Would.WOULD_ALLOW, ("r-permit", "s-permit"), True)),
        (PERMIT, PERMIT_ALL + gate("owners"), ShadowVerdict(Would.WOULD_NEED_APPROVAL, (), False)),
        # Other people would be asked, too.
        (
            gate("risk", name="s"),
            PERMIT_ALL + gate("owners"),
            ShadowVerdict(Would.WOULD_NEED_APPROVAL, ("s-gate",), True),
        ),
        (
            gate("owners", name="s"),
            PERMIT_ALL + gate("owners"),
            ShadowVerdict(Would.WOULD_NEED_APPROVAL, ("s-gate",), False),
        ),
        # It fails, and so does what stands: they would change nothing.
        (PERMIT, FAILS.replace("s-", "e-"), ShadowVerdict(Would.WOULD_DENY, (), False)),
    ],
)
def test_what_they_would(text: str, enforced: str, expected: ShadowVerdict) -> None:
    assert verdict(text, enforced) == expected


def test_a_verdict_in_the_trail() -> None:
    told = ShadowVerdict(Would.WOULD_DENY, ("a", "b"), True).told()
    assert told == {"would": "WOULD_DENY", "shadow_policies": ["a", "b"]}


def test_what_they_look_at_and_name_is_told_beside_what_is_in_force() -> None:
    named = '@id("s-named") permit (principal == Agent::"spiffe://test/a", action, resource);'
    counting = (
        '@id("s-counts") permit (principal, action == Action::"read", resource) when { context.active_count < 3 };'
    )
    pending = (
        '@id("pends") permit (principal == Agent::"spiffe://test/b", action, resource)'
        " when { context.pending_count < 3 };"
    )
    seen = shadow(named + "\n" + counting, pending)
    assert seen.ids == {"s-named", "s-counts"} == seen.statements.keys()
    assert (seen.statements["s-counts"].file, seen.statements["s-counts"].line) == ("shadow_policies/s.cedar", 2)
    assert [(each.policy, each.name) for each in seen.mentions] == [("s-named", "spiffe://test/a")]
    assert seen.reads(AccessClass.READ) == {"active_count", "pending_count"}
    assert seen.reads(AccessClass.WRITE) == {"pending_count"}


def test_of_what_is_wrong_their_own_part_is_told_if_there_is_one() -> None:
    for text, enforced, files in (
        ("permit", PERMIT_ALL, {"shadow_policies/s.cedar"}),
        ("permit", "permit", {"shadow_policies/s.cedar"}),
        (PERMIT, "permit", {"policies/p.cedar"}),
    ):
        with pytest.raises(PolicyProblems) as caught:
            shadow(text, enforced)
        assert {each.file for each in caught.value.problems} == files


def test_a_verdict_cannot_be_taken_for_a_decision() -> None:
    assert not issubclass(ShadowVerdict, Decision)
    assert not {"allowed", "effect"} & {*dir(ShadowVerdict), *(each.name for each in fields(ShadowVerdict))}
    assert not {each.value for each in Would} & {each.value for each in Effect}
    assert not any(hasattr(ShadowPolicies, name) for name in ("decide", "policies", "digest"))


def test_no_failure_of_theirs_is_one_of_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = shadow(FORBID, PERMIT_ALL)

    def fails(*_: object) -> Decision:
        raise RuntimeError("whatever")

    monkeypatch.setattr(PolicySet, "decide", fails)
    standing = Decision(Effect.ALLOW, ("all",), (), (), "")
    assert tried.verdict(facts(), standing) == ShadowVerdict(Would.WOULD_FAIL, (), True)


TEXTS = st.sampled_from([PERMIT, FORBID, FAILS, gate("owners", name="s")])
ENFORCED = st.sampled_from(
    ["", PERMIT_ALL, NOTHING, PERMIT_ALL + gate("owners"), PERMIT_ALL + FAILS.replace("s-", "e-")]
)


@settings(max_examples=30, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=3, unique=True), ENFORCED, st.sampled_from(list(AccessClass)))
def test_a_set_decides_the_same_with_shadow_policies_beside_it(
    texts: list[str], enforced: str, access: AccessClass
) -> None:
    asked = facts(scope={"access": access})
    alone = policies(enforced).decide(asked)
    beside = policies(enforced)
    shadow("\n".join(texts), enforced).verdict(asked, alone)
    assert beside.decide(asked) == alone


# --------------------------------------------------------------------------- as files


@pytest.fixture
def deploy(tmp_path: Path) -> Path:
    copy = private_copy(HERE / "good", tmp_path / "set")
    (copy / "shadow_policies").mkdir(mode=0o700)
    return copy


def test_the_set_in_force_does_not_know_them(deploy: Path) -> None:
    before = load(private_copy(HERE / "good", deploy.parent / "without"))
    (deploy / "shadow_policies/try.cedar").write_text(FORBID)
    loaded = load(deploy)
    assert loaded.shadow is not None and loaded.shadow.ids == {"s-forbid"}
    assert loaded.policies.statements.keys() == before.policies.statements.keys()
    assert loaded.policies.digest == before.policies.digest
    assert loaded.digest != before.digest
    assert before.shadow is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("forbid (principal, action, resource);", "has no @id"),
        ('@id("x") permit (principal, action, resource) when { context.colour == "red" };', "colour"),
        ('@id("read") permit (principal, action, resource);', "has the @id read again"),
        ('@id("x") permit (principal == Agent::"spiffe://example.org/nobody", action, resource);', "is no registered"),
        (gate("nobody", name="x"), "is no rule of approvals.yaml"),
    ],
)
def test_what_is_wrong_with_them_is_told(deploy: Path, text: str, told: str) -> None:
    (deploy / "shadow_policies/try.cedar").write_text(text)
    with pytest.raises(Problems) as caught:
        load(deploy)
    assert all("shadow_policies/try.cedar" in each.file for each in caught.value.problems)
    assert any(told in each.message for each in caught.value.problems)


def test_a_folder_of_policies_below_policies_is_refused(deploy: Path) -> None:
    # What somebody takes for tried out must not be in force, nor the other way round.
    (deploy / "policies/shadow").mkdir()
    with pytest.raises(Problems) as caught:
        load(deploy)
    assert any(each.file.endswith("policies/shadow") for each in caught.value.problems)


# --------------------------------------------------------------------------- in the broker


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = await World.open(tmp_path)
    yield world
    await world.close()


def beside(world: World, text: str, enforced: str) -> Metrics:
    """``enforced`` in force and ``text`` in shadow, what is seen counted."""
    metrics = Metrics()
    world.issuer._shadow_seen = metrics.shadow
    parsed = PolicySet.parse({"p.cedar": enforced}, policy_schema())
    world.deploy = replace(world.deploy, policies=parsed, shadow=shadow(text, enforced))
    return metrics


async def recorded(world: World) -> list[object]:
    records = [decode(body) for body in await world.store.audit_since(0, 100)]
    return [record.data.get("shadow") for record in records if record.type == "lease.intent"]


async def test_what_would_be_refused_is_granted_and_recorded_and_counted(world: World) -> None:
    metrics = beside(world, FORBID, PERMIT_ALL)
    assert (await world.grant(await world.task())).lease is not None
    assert await recorded(world) == [{"would": "WOULD_DENY", "shadow_policies": ["s-forbid"]}]
    ((counter,),) = [[*metric.samples] for metric in metrics._shadow.collect()]
    assert (counter.value, counter.labels) == (
        1,
        {"shadow_policy": "s-forbid", "would": "WOULD_DENY", "changes": "yes"},
    )


async def test_what_would_be_granted_is_refused_all_the_same(world: World) -> None:
    beside(world, PERMIT, "")
    with pytest.raises(Denied) as caught:
        await world.grant(await world.task())
    assert (caught.value.reason, caught.value.metadata["policies"]) == (Reason.POLICY_DENIED, "")
    assert caught.value.evidence["shadow"] == {"would": "WOULD_ALLOW", "shadow_policies": ["s-permit"]}
    assert world.upstream.calls == []


async def test_what_would_change_nothing_is_not_in_the_trail(world: World) -> None:
    beside(world, PERMIT, PERMIT_ALL)
    await world.grant(await world.task())
    assert await recorded(world) == [None]


async def test_what_only_they_look_at_is_seen_and_refuses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = '@id("s-alone") @reason("One.") forbid (principal, action, resource) when { context.active_count > 0 };'
    beside(world, counting, PERMIT_ALL)
    task = await world.task()
    await world.grant(task, name="r1")
    await world.grant(task, name="r2")
    assert await recorded(world) == [None, {"would": "WOULD_DENY", "shadow_policies": ["s-alone"]}]

    async def unreadable(*_: str) -> None:
        raise NotReady(Reason.STORE_UNAVAILABLE, "no")

    monkeypatch.setattr(world.store, "holdings", unreadable)
    assert (await world.grant(task, name="r3")).lease is not None
