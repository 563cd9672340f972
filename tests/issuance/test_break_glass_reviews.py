"""What break-glass owes: reviews in time, blocks, overrides; and sealed codes for when nobody can log in."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.breakglass.codes import CODES_LAST, CONFIRM_WITHIN
from broker.breakglass.reviews import OverrideKind, ReviewState
from broker.breakglass.rules import BY_CODE
from broker.errors import BrokerError, Reason, WrongState
from broker.issuance.break_glass_codes import CodeDesk, MadeCodes
from broker.issuance.fresh_logins import FreshLogins
from broker.secret import Secret
from tests.clock import CountingRng
from tests.issuance.emergency import Emergency
from tests.issuance.test_break_glass import nothing_issued, refused
from tests.issuance.world import PEOPLE, TENANT, id_tokens

DAY = timedelta(hours=24)


@pytest.fixture
async def glass(tmp_path: Path) -> AsyncIterator[Emergency]:
    made = await Emergency.open(tmp_path, max_uses=5)
    yield made
    await made.world.close()


async def overdue(glass: Emergency) -> str:
    """A use by Bea whose review is a day late; its lease."""
    use = await glass.ended()
    glass.world.later(DAY)
    return use.lease_id


# ------------------------------------------------------------------ reviews


async def test_somebody_else_reviews_it_once(glass: Emergency) -> None:
    use = await glass.ended()
    after = await glass.review(use.lease_id)
    assert after.findings is not None
    assert (after.findings.reviewer, after.findings.text) == (PEOPLE["eli"].id, "was needed")
    assert after.review_state(glass.world.clock.now()) is ReviewState.REVIEWED
    # The same again is the same; anything else is too late.
    assert await glass.review(use.lease_id) == after
    assert await refused(glass.review(use.lease_id, text="was not")) is Reason.REQUEST_ID_REUSED
    assert await refused(glass.review(use.lease_id, "fay", "v2", text="\u200b")) is Reason.BREAK_GLASS_VALUE_INVALID
    assert await refused(glass.review(use.lease_id, "fay", "v2")) is Reason.BREAK_GLASS_REVIEWED
    assert await glass.types() == ["used", "ended", "review_due", "reviewed"]


async def test_nobody_reviews_their_own(glass: Emergency) -> None:
    use = await glass.ended()
    assert await refused(glass.review(use.lease_id, "bea")) is Reason.REVIEW_OF_ONES_OWN
    task = await glass.world.task()
    lease = await glass.used(name="g2", task_id=task.id)
    await glass.desk.end(glass.person("bea"), lease.id, timedelta(seconds=30))
    # Ada owns the agent it was for.
    assert await refused(glass.review(lease.id, "ada")) is Reason.REVIEW_OF_ONES_OWN
    assert "reviewed" not in await glass.types()


async def test_a_review_says_something_about_something_that_is_over(glass: Emergency) -> None:
    lease = await glass.used()
    assert await refused(glass.review(lease.id)) is Reason.BREAK_GLASS_LIVE
    assert await refused(glass.review("lease-none")) is Reason.BREAK_GLASS_NOT_FOUND
    await glass.desk.end(glass.person("bea"), lease.id, timedelta(seconds=30))
    assert await refused(glass.review(lease.id, text="  ")) is Reason.BREAK_GLASS_VALUE_INVALID


async def test_of_two_reviews_at_once_one_stands(glass: Emergency) -> None:
    use = await glass.ended()
    outcomes = await asyncio.gather(
        glass.review(use.lease_id, "eli", "v1", "one"),
        glass.review(use.lease_id, "fay", "v1", "other"),
        return_exceptions=True,
    )
    lost = [each for each in outcomes if isinstance(each, WrongState)]
    assert [each.reason for each in lost] == [Reason.BREAK_GLASS_REVIEWED]
    assert (await glass.types()).count("reviewed") == 1


# ------------------------------------------------------------------ overdue


async def test_an_overdue_review_is_told_once_and_blocks_the_group_until_it_is_done(glass: Emergency) -> None:
    lease_id = await overdue(glass)
    # No tick has run: it blocks by the time alone.
    assert await refused(glass.use("cyd", "g2")) is Reason.BREAK_GLASS_BLOCKED
    await glass.tend()
    await glass.tend()
    assert await glass.types() == ["used", "ended", "review_due", "blocked", "review_overdue"]
    (told,) = await glass.events("break_glass.review_overdue")
    assert told["data"]["blocked"] == ["sre"]
    (blocked,) = await glass.events("break_glass.blocked")
    assert (blocked["actor"], blocked["data"]["leaseId"]) == (PEOPLE["cyd"].id, lease_id)
    figures = await glass.world.store.figures(glass.world.clock.now())
    assert dict(figures.reviews) == {"OVERDUE": 1}
    (option,) = await glass.desk.options(glass.person("cyd"))
    assert option.blocked_by == lease_id
    await glass.review(lease_id)
    assert (await glass.use("cyd", "g2")).lease is not None
    assert not (await glass.desk.options(glass.person("cyd")))[0].blocked_by


async def test_the_last_moment_is_not_late(glass: Emergency) -> None:
    await glass.ended()
    glass.world.later(DAY - timedelta(milliseconds=1))
    assert (await glass.use("cyd", "g2")).lease is not None


async def test_another_group_is_not_blocked(glass: Emergency) -> None:
    await overdue(glass)
    rule = glass.world.deploy.break_glass["orders-read"]
    both = {"orders-read": replace(rule, groups=frozenset({"sre", "dba"}))}
    glass.world.deploy = replace(glass.world.deploy, break_glass=both)
    assert await refused(glass.use("cyd", "g2")) is Reason.BREAK_GLASS_BLOCKED
    assert (await glass.use("fay", "g3")).lease is not None


async def test_two_other_people_pass_over_a_block_once(glass: Emergency) -> None:
    lease_id = await overdue(glass)
    review = OverrideKind.REVIEW
    assert await refused(glass.override("cyd", review, "sre", "cyd")) is Reason.SECOND_PERSON_REQUIRED
    await glass.override("eli", review, "sre", "cyd")
    # The same person twice is one person.
    await glass.override("eli", review, "sre", "cyd", "o2")
    assert await refused(glass.use("cyd", "g2")) is Reason.BREAK_GLASS_BLOCKED
    given = await glass.override("fay", review, "sre", "cyd")
    assert (given.needed, given.by) == (2, (PEOPLE["eli"].id, PEOPLE["fay"].id))
    lease = await glass.used("cyd", "g2")
    assert lease.break_glass is not None and lease.break_glass.overrode == ("REVIEW sre",)
    # Not for Bea, not a second time; and the review is still owed.
    assert await refused(glass.use("bea", "g3")) is Reason.BREAK_GLASS_BLOCKED
    assert await refused(glass.use("cyd", "g4")) is Reason.BREAK_GLASS_BLOCKED
    assert (await glass.review(lease_id)).findings is not None


async def test_a_review_and_the_last_word_at_once(glass: Emergency) -> None:
    """Whichever comes first: after a review there is nothing to override, and a review is owed after an override."""
    lease_id = await overdue(glass)
    await glass.override("eli", OverrideKind.REVIEW, "sre", "cyd")
    outcomes = await asyncio.gather(
        glass.review(lease_id, "ada"),
        glass.override("fay", OverrideKind.REVIEW, "sre", "cyd"),
        return_exceptions=True,
    )
    lost = [each.reason for each in outcomes if isinstance(each, BrokerError)]
    assert lost in ([], [Reason.BREAK_GLASS_NOTHING_TO_OVERRIDE])
    assert (await glass.types()).count("override") == 2 - len(lost)
    use, _ = await glass.desk.get(glass.person("eli"), lease_id)
    assert use.findings is not None


async def test_a_use_and_the_review_that_unblocks_it_at_once(glass: Emergency) -> None:
    lease_id = await overdue(glass)
    used, reviewed = await asyncio.gather(glass.use("cyd", "g2"), glass.review(lease_id, "ada"), return_exceptions=True)
    assert not isinstance(reviewed, BaseException)
    # The use was first in the queue, and was decided on what was there then.
    assert isinstance(used, BrokerError) and used.reason is Reason.BREAK_GLASS_BLOCKED
    assert not glass.world.upstream.alive


async def test_it_survives_a_restart(tmp_path: Path) -> None:
    glass = await Emergency.open(tmp_path)
    lease_id = await overdue(glass)
    late = glass.world.clock.now()
    await glass.world.close()
    again = await Emergency.open(tmp_path)
    again.world.clock.advance(late - again.world.clock.now())
    try:
        assert await refused(again.use("cyd", "g2")) is Reason.BREAK_GLASS_BLOCKED
        await again.review(lease_id)
        assert (await again.use("cyd", "g3")).lease is not None
    finally:
        await again.world.close()


async def test_pages_are_newest_first_and_settled_ones_are_left_out(glass: Emergency) -> None:
    leases = []
    for number in range(3):
        glass.world.clock.advance(timedelta(minutes=1))
        leases.append((await glass.ended(name=f"g{number}")).lease_id)
    await glass.review(leases[0])
    page, token = await glass.desk.list(glass.person("fay"), unsettled=False, after="", limit=2)
    assert [use.lease_id for use, _ in page] == [leases[2], leases[1]]
    rest, end = await glass.desk.list(glass.person("fay"), unsettled=False, after=token, limit=2)
    assert ([use.lease_id for use, _ in rest], end) == ([leases[0]], "")
    assert [use.lease_id for use, _ in await glass.uses(unsettled=True)] == [leases[2], leases[1]]
    assert await refused(glass.desk.list(glass.person("fay"), unsettled=False, after="x", limit=2)) is (
        Reason.PAGE_TOKEN_INVALID
    )


# ------------------------------------------------------------------ sealed codes


async def made(glass: Emergency, count: int = 1, person: str = "bea") -> MadeCodes:
    batch = await glass.request_codes("eli", f"b-{person}", person, count, "safe 3")
    return await glass.make_codes("fay", batch.id)


async def by_code(glass: Emergency, text: Secret, key: str = "bea", name: str = "g1") -> str:
    proven = await glass.codes.prove(TENANT, PEOPLE[key].id, text)
    grant = await glass.use(key, name, proven)
    assert grant.lease is not None
    return grant.lease.id


async def test_a_code_is_good_once_for_whom_it_names(glass: Emergency) -> None:
    ((kept, text),) = (await made(glass)).codes
    lease_id = await by_code(glass, text)
    use, _ = await glass.desk.get(glass.person("fay"), lease_id)
    assert (use.how, use.code_id) == (BY_CODE, kept.id)
    types = await glass.types()
    assert types == ["codes_requested", "codes_made", "used", "code_used"]
    assert await refused(by_code(glass, text, name="g2")) is Reason.BREAK_GLASS_CODE_SPENT
    assert await refused(by_code(glass, text, "cyd", "g3")) is Reason.BREAK_GLASS_CODE_OF_ANOTHER
    assert len(await glass.uses()) == 1


async def test_a_code_is_read_as_people_type_it(glass: Emergency) -> None:
    ((_, text),) = (await made(glass)).codes
    typed = text.reveal().lower().replace("-", " ").replace("0", "o").replace("1", "l")
    assert (await glass.codes.prove(TENANT, PEOPLE["bea"].id, Secret(typed))).how == BY_CODE


async def test_nothing_that_opens_a_door_is_kept(glass: Emergency, tmp_path: Path) -> None:
    ((_, text),) = (await made(glass)).codes
    secret = "".join(text.reveal().split("-")[2:]).encode()
    await by_code(glass, text)
    for path in tmp_path.iterdir():
        if path.is_file():
            content = path.read_bytes()
            assert secret not in content and text.reveal().encode() not in content


async def test_of_two_uses_of_one_code_one_wins(glass: Emergency) -> None:
    ((_, text),) = (await made(glass)).codes
    outcomes = await asyncio.gather(
        by_code(glass, text, name="g1"), by_code(glass, text, name="g2"), return_exceptions=True
    )
    assert [each.reason for each in outcomes if isinstance(each, BrokerError)] == [Reason.BREAK_GLASS_CODE_SPENT]
    assert len(glass.world.upstream.alive) == 1


async def test_a_refused_use_leaves_the_code(glass: Emergency) -> None:
    ((_, text),) = (await made(glass)).codes
    proven = await glass.codes.prove(TENANT, PEOPLE["bea"].id, text)
    assert await refused(glass.use(proven=proven, reason="")) is Reason.BREAK_GLASS_REASON_MISSING
    await nothing_issued(glass)
    await by_code(glass, text)


@pytest.mark.parametrize("text", ["", "JBG1", "JBG1-AAAAAAAA-" + "-".join(["AAAAA"] * 5), "x" * 5000, "JBG1-ÄÄÄÄÄÄÄÄ"])
async def test_what_is_no_code(glass: Emergency, text: str) -> None:
    assert await refused(glass.codes.prove(TENANT, PEOPLE["bea"].id, Secret(text or " "))) is (
        Reason.BREAK_GLASS_CODE_INVALID
    )


async def test_five_wrong_secrets_and_a_code_is_dead(glass: Emergency) -> None:
    ((kept, text),) = (await made(glass)).codes
    wrong = Secret(f"JBG1-{kept.id}-" + "0" * 25)
    for _ in range(5):
        assert await refused(glass.codes.prove(TENANT, PEOPLE["bea"].id, wrong)) is Reason.BREAK_GLASS_CODE_INVALID
    assert (await glass.types()).count("code_failed") == 5
    assert await refused(by_code(glass, text)) is Reason.BREAK_GLASS_CODE_INVALID
    (dead,) = (await glass.codes.list(glass.person("eli")))[1]
    assert (dead.state(glass.world.clock.now()), dead.revoked_by) == ("REVOKED", "broker")


async def test_two_people_make_codes(glass: Emergency) -> None:
    batch = await glass.request_codes("eli", "b1", "bea", 2, "safe 3")
    assert await refused(glass.make_codes("eli", batch.id)) is Reason.SECOND_PERSON_REQUIRED
    assert not (await glass.codes.list(glass.person("eli")))[1]
    made = await glass.make_codes("fay", batch.id)
    assert (made.batch.confirmed_by, len(made.codes)) == (PEOPLE["fay"].id, 2)
    assert await refused(glass.make_codes("cyd", batch.id)) is Reason.BREAK_GLASS_CODE_SPENT
    assert await refused(glass.make_codes("fay", "batch-x")) is Reason.BREAK_GLASS_CODE_NOT_FOUND


async def test_a_batch_does_not_wait_for_ever(glass: Emergency) -> None:
    batch = await glass.request_codes("eli", "b1", "bea", 1, "safe 3")
    glass.world.clock.advance(CONFIRM_WITHIN)
    assert await refused(glass.make_codes("fay", batch.id)) is Reason.BREAK_GLASS_CODE_SPENT


@pytest.mark.parametrize("what", ["code", "batch"])
async def test_revoked_and_expired_codes_get_nothing(glass: Emergency, what: str) -> None:
    batch = await made(glass, 2)
    (kept, text), (_, second) = batch.codes
    ended = await glass.codes.revoke(glass.person("cyd"), kept.id if what == "code" else batch.batch.id)
    assert ended == (1 if what == "code" else 2)
    assert await glass.codes.revoke(glass.person("cyd"), kept.id) == 0
    assert await refused(by_code(glass, text)) is Reason.BREAK_GLASS_CODE_SPENT
    glass.world.later(CODES_LAST)
    assert await refused(by_code(glass, second)) is Reason.BREAK_GLASS_CODE_SPENT
    await nothing_issued(glass)


@pytest.mark.parametrize(
    ("person", "count", "reason"),
    [
        ("nobody", 1, "safe"),
        ("dee", 1, "safe"),
        ("bea", 0, "safe"),
        ("bea", 21, "s"),
        ("bea", 1, " "),
        ("bea", 1, "\u200b"),
    ],
)
async def test_codes_are_for_somebody_and_few(glass: Emergency, person: str, count: int, reason: str) -> None:
    asked = glass.request_codes("eli", "b1", person, count, reason)
    assert await refused(asked) is Reason.BREAK_GLASS_VALUE_INVALID
    assert await glass.codes.list(glass.person("eli")) == ([], [])


async def test_the_hash_of_the_real_cost(glass: Emergency) -> None:
    fresh = FreshLogins(id_tokens(glass.world.provider), glass.world.clock)
    glass.codes = CodeDesk(glass.world.store, fresh, glass.world.clock, CountingRng(), secrets.token_bytes)
    ((_, text),) = (await made(glass)).codes
    assert (await glass.codes.prove(TENANT, PEOPLE["bea"].id, text)).how == BY_CODE
