"""py-spiffe against a Workload API that says what it should not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest

from broker.errors import Reason, Unauthenticated
from broker.identity.bundle import TrustBundle
from broker.workloadapi.source import Update, WorkloadApi
from tests.forge import authority
from tests.patience import PATIENCE, until
from tests.workloadapi.server import ScriptedWorkloadApi, answer, der, svid

NOW = datetime.now(UTC).replace(microsecond=0)
HOME, NEXT = authority("example.org", at=NOW), authority("example.org", at=NOW, name="next")
PARTNER, OTHER = authority("partner.org", at=NOW), authority("other.org", at=NOW)
ONE, TWO = (HOME.intermediate().svid(f"spiffe://example.org/broker/{n}", dns=["brokerd"]) for n in ("one", "two"))


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ScriptedWorkloadApi]:
    served = ScriptedWorkloadApi(tmp_path / "api.sock", answer(svid(ONE, HOME))).start()
    yield served
    served.stop()


@pytest.fixture
def source(api: ScriptedWorkloadApi) -> Iterator[WorkloadApi]:
    made = WorkloadApi(api.endpoint, timeout_seconds=PATIENCE)
    yield made
    made.close()


def eventually(source: WorkloadApi, condition: Callable[[Update], bool]) -> Update:
    """The first answer for which ``condition`` holds; failures on the way are looked over."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            if condition(found := source.current()):
                return found
        except Unauthenticated:
            pass
        time.sleep(0.02)
    raise AssertionError("it did not come true")


def roots(update: Update, trust_domain: str) -> set[bytes]:
    bundle = TrustBundle.from_pem(trust_domain, update.roots_pem[trust_domain])
    return {root.fingerprint.encode() for root in bundle.roots}


def test_one_answer_whole(api: ScriptedWorkloadApi, source: WorkloadApi) -> None:
    api.say(answer(svid(ONE, HOME, NEXT), federated={"partner.org": der(PARTNER)}))
    update = source.current()
    assert update.chain_pem == ONE.pem + ONE.chain_pem
    assert update.key_pem == ONE.key_pem
    assert "PRIVATE KEY" not in repr(update)
    assert {name: len(roots(update, name)) for name in update.roots_pem} == {"example.org": 2, "partner.org": 1}
    assert source.current() == update  # in one order, so that nothing new is nothing new


@pytest.mark.parametrize("broken", [b"", b"\x30\x03junk", b"\x00", PARTNER.der[:-5], PARTNER.pem])
def test_a_foreign_bundle_that_cannot_be_read_spoils_nothing_else(
    api: ScriptedWorkloadApi, source: WorkloadApi, broken: bytes
) -> None:
    first = source.current()
    federated = {"partner.org": broken, "other.org": der(OTHER), "Other.org": der(PARTNER), "x y": der(PARTNER)}
    api.say(answer(svid(TWO, HOME), federated=federated))
    update = eventually(source, lambda found: found.chain_pem != first.chain_pem)
    assert update.chain_pem.startswith(TWO.pem)
    assert update.roots_pem["partner.org"] == b""  # sent, and not one root
    assert set(update.roots_pem) == {"example.org", "partner.org", "other.org"}
    assert update.roots_pem["other.org"] == OTHER.pem  # and "Other.org" is not it


def test_a_foreign_bundle_that_is_not_sent_any_more_is_gone(api: ScriptedWorkloadApi, source: WorkloadApi) -> None:
    api.say(answer(svid(ONE, HOME), federated={"partner.org": der(PARTNER)}))
    eventually(source, lambda found: "partner.org" in found.roots_pem)
    api.say(answer(svid(ONE, HOME)))
    assert set(eventually(source, lambda found: "partner.org" not in found.roots_pem).roots_pem) == {"example.org"}


def test_an_answer_that_is_no_answer_is_thrown_away_and_asked_for_again(
    api: ScriptedWorkloadApi, source: WorkloadApi
) -> None:
    """Without a bundle of its own an SVID is not used (SPIFFE_Workload_API.md, 4.5), and py-spiffe gives up."""
    source.current()
    refused = threading.Event()
    api.say(answer(svid(TWO)))
    end = time.monotonic() + PATIENCE
    while not refused.is_set() and time.monotonic() < end:
        try:
            assert source.current().chain_pem.startswith(ONE.pem)
        except Unauthenticated as error:
            assert error.reason is Reason.SVID_MISSING
            refused.set()
    assert refused.is_set()
    api.say(answer(svid(TWO, HOME)))
    assert eventually(source, lambda found: found.chain_pem.startswith(TWO.pem))


def test_which_of_several_svids(api: ScriptedWorkloadApi, source: WorkloadApi) -> None:
    api.say(answer(svid(ONE, HOME), svid(TWO, HOME)))
    assert source.current().chain_pem.startswith(ONE.pem)
    chosen = WorkloadApi(api.endpoint, spiffe_id="spiffe://example.org/broker/two")
    assert chosen.current().chain_pem.startswith(TWO.pem)
    chosen.close()
    nobody = WorkloadApi(api.endpoint, spiffe_id="spiffe://example.org/broker/three")
    with pytest.raises(Unauthenticated, match=r"three is not among .*one, .*two"):
        nobody.current()


def test_an_error_of_the_workload_api_is_told(api: ScriptedWorkloadApi) -> None:
    api.say(grpc.StatusCode.PERMISSION_DENIED)

    def told() -> bool:
        source = WorkloadApi(api.endpoint, timeout_seconds=0.5)
        with pytest.raises(Unauthenticated) as refused:
            source.current()
        return "as the test wants it" in str(refused.value)

    until(told)  # half a second may be too short for the question why


def test_a_source_that_was_closed_opens_again(source: WorkloadApi) -> None:
    first = source.current()
    source.close()
    source.close()
    assert source.current() == first
