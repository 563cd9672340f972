"""JWT bundles in force: followed, the last good kept, and no trust domain standing for another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from broker.api.proxied_bundles import JwtBundleFile, JwtTrust, PushedJwtBundle
from broker.errors import InvalidInput
from tests.api.served import private
from tests.forge_jwt import ec_key, jwk

OWN, PARTNER, THIRD = "own.example", "partner.example", "third.example"


class Moments:
    """A monotonic clock that moves on by a minute each time it is asked."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        self._now += 60
        return self._now


class Files:
    """One bundle file per trust domain, with keys named for what they are."""

    def __init__(self, root: Path, **keys: list[str]) -> None:
        self._root = root
        for name, listed in keys.items():
            self.write(f"{name}.example", listed)

    def write(self, trust_domain: str, keys: list[str] | str) -> None:
        document = {"keys": [jwk(ec_key(key), key) for key in keys]} if isinstance(keys, list) else keys
        text = document if isinstance(document, str) else json.dumps(document)
        private(self._root / "next", text).rename(self._root / f"{trust_domain}.json")

    def trust(self) -> JwtTrust:
        names = sorted(path.stem for path in self._root.glob("*.json"))
        origins = {name: JwtBundleFile(name, self._root / f"{name}.json") for name in names}
        return JwtTrust(OWN, origins, monotonic=Moments())


def in_force(trust: JwtTrust) -> dict[str, set[str]]:
    return {name: set(bundle.keys) for name, bundle in trust.bundles.items()}


def test_what_is_written_is_taken_up(tmp_path: Path) -> None:
    files = Files(tmp_path, own=["a"])
    trust = files.trust()
    version = trust.bundles.version
    trust.refresh()
    assert trust.bundles.version == version
    files.write(OWN, ["a", "b"])
    trust.refresh()
    assert in_force(trust) == {OWN: {"a", "b"}}
    assert trust.bundles.version != version
    assert trust.problems == ()


@pytest.mark.parametrize("bad", ["", "{}", '{"keys":[]}', "\x00", "[1]"])
def test_what_is_no_bundle_is_kept_out_and_told(tmp_path: Path, bad: str) -> None:
    files = Files(tmp_path, own=["a"], partner=["p"])
    trust = files.trust()
    files.write(OWN, bad)
    files.write(PARTNER, ["q"])
    trust.refresh()
    assert in_force(trust) == {OWN: {"a"}, PARTNER: {"q"}}
    (problem,) = trust.problems
    assert OWN in problem.message
    files.write(OWN, ["b"])
    trust.refresh()
    assert in_force(trust)[OWN] == {"b"}
    assert trust.problems == ()


@pytest.mark.parametrize("change", ["removed", "writable by others", "a directory"])
def test_a_file_that_cannot_be_trusted_changes_nothing(tmp_path: Path, change: str) -> None:
    files = Files(tmp_path, own=["a"])
    trust = files.trust()
    path = tmp_path / f"{OWN}.json"
    if change == "writable by others":
        files.write(OWN, ["attacker"])
        path.chmod(0o666)
    else:
        path.unlink()
    if change == "a directory":
        path.mkdir()
    trust.refresh()
    assert in_force(trust) == {OWN: {"a"}}
    assert len(trust.problems) == 1


def test_a_partner_with_our_key_neither_holds_up_its_removal_nor_speaks_for_us(tmp_path: Path) -> None:
    files = Files(tmp_path, own=["a", "leaked"], partner=["p"])
    trust = files.trust()
    files.write(PARTNER, ["p", "leaked"])
    trust.refresh()
    assert in_force(trust) == {OWN: {"a", "leaked"}, PARTNER: {"p"}}
    assert "shares a key" in trust.problems[0].message
    files.write(OWN, ["a"])
    trust.refresh()
    assert in_force(trust)[OWN] == {"a"}


def test_a_partner_cannot_throw_another_out(tmp_path: Path) -> None:
    files = Files(tmp_path, own=["a"], partner=["p"], third=["t"])
    trust = files.trust()
    files.write(PARTNER, ["t"])
    trust.refresh()
    assert in_force(trust) == {OWN: {"a"}, PARTNER: {"p"}, THIRD: {"t"}}


def test_what_would_collide_as_it_was_and_as_it_is_gets_nobody_in(tmp_path: Path) -> None:
    files = Files(tmp_path, own=["a"], partner=["p"])
    trust = files.trust()
    files.write(OWN, ["p"])
    trust.refresh()
    assert in_force(trust) == {OWN: {"p"}}
    assert PARTNER in trust.problems[0].message


def test_without_good_bundles_there_is_no_beginning(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        Files(tmp_path, own=[]).trust()
    with pytest.raises(InvalidInput):
        Files(tmp_path, own=["a"], partner=[]).trust()


def test_who_shares_our_key_from_the_beginning_does_not_get_in(tmp_path: Path) -> None:
    trust = Files(tmp_path, own=["a"], partner=["a"]).trust()
    assert in_force(trust) == {OWN: {"a"}}
    assert PARTNER in trust.problems[0].message


# ------------------------------------------------------------------ from the Workload API


class Pushed:
    """What a follower heard last."""

    def __init__(self, **documents: bytes) -> None:
        self.latest = {f"{name}.example": document for name, document in documents.items()}


def unmarked(*keys: str) -> bytes:
    return json.dumps({"keys": [jwk(ec_key(key), key, use=None) for key in keys]}).encode()


def pushed_trust(source: Pushed) -> JwtTrust:
    origins = {
        name: PushedJwtBundle(source, "unix:///agent.sock", name, foreign=name != OWN)  # type: ignore[arg-type]
        for name in (OWN, PARTNER)
    }
    return JwtTrust(OWN, origins, {PARTNER}, Moments())


def test_what_is_not_sent_any_more_was_taken_away_and_what_is_sent_badly_is_kept() -> None:
    source = Pushed(own=unmarked("a"), partner=unmarked("p"), unasked=unmarked("u"))
    trust = pushed_trust(source)
    assert in_force(trust) == {OWN: {"a"}, PARTNER: {"p"}}
    source.latest = {OWN: b"{}", PARTNER: b"not json"}
    trust.refresh()
    assert in_force(trust) == {OWN: {"a"}, PARTNER: {"p"}}
    assert len(trust.problems) == 2
    source.latest = {OWN: unmarked("b")}
    trust.refresh()
    assert in_force(trust) == {OWN: {"b"}}
    source.latest = {}
    trust.refresh()
    # Our own is never taken away: there would be nobody left to authenticate, by somebody's mistake.
    assert in_force(trust) == {OWN: {"b"}}


@pytest.mark.parametrize("partner", [b"garbage", unmarked("a")])
def test_a_partner_cannot_keep_us_from_starting(partner: bytes) -> None:
    trust = pushed_trust(Pushed(own=unmarked("a"), partner=partner))
    assert in_force(trust) == {OWN: {"a"}}
    assert len(trust.problems) == 1


def test_without_our_own_bundle_there_is_no_beginning_either() -> None:
    with pytest.raises(InvalidInput, match=r"agent\.sock"):
        pushed_trust(Pushed(partner=unmarked("p")))
