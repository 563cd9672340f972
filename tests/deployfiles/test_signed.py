"""A set that needs signatures loads with the right ones only, whatever else somebody puts there."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.dsse import Envelope

from broker.deployfiles import DeployFiles, envelope, listing, load
from broker.deployfiles.load import build
from broker.deployfiles.signed import overtaken, verified
from broker.deployfiles.signers import Signer, Signers
from broker.deployfiles.signing import sign
from broker.deployfiles.statement import PAYLOAD_TYPE, Statement
from broker.files import Problems
from broker.ports.deploys import AcceptedDeploy, DeploySet
from tests.deployfiles.test_broken import HERE, private_copy
from tests.signing import KEYS, PEOPLE, STRANGER, signed, signers

SIGNERS = signers()


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """Written by Dana, signed by her and by Alex."""
    return signed(private_copy(HERE / "good", tmp_path / "set"), "dana-1", "alex-1", serial=7)


def refused(directory: Path, *parts: str, by: Signers = SIGNERS) -> None:
    """The set does not load, and the one problem says why, in the envelope's file."""
    with pytest.raises(Problems) as caught:
        load(directory, signers=by)
    (problem,) = caught.value.problems
    assert problem.file == str(directory / listing.ENVELOPE)
    for part in parts:
        assert part in str(problem)


def put(directory: Path, container: Envelope | dict[str, Any]) -> None:
    told = container if isinstance(container, dict) else container.to_dict()
    (directory / listing.ENVELOPE).write_text(json.dumps(told))


def there(directory: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((directory / listing.ENVELOPE).read_text())
    return told


def digest(directory: Path) -> str:
    return listing.read_set(directory).digest()


def test_a_signed_set_says_who_stands_for_it(good: Path) -> None:
    loaded = load(good, signers=SIGNERS)
    assert loaded.signed is not None
    assert (loaded.signed.author, loaded.signed.serial) == ("dana", 7)
    assert (loaded.signed.signers, loaded.signed.keys) == (("alex", "dana"), ("alex-1", "dana-1"))


def test_signatures_do_not_change_the_digest(good: Path) -> None:
    before = digest(good)
    sign(good, KEYS["kim-1"], "kim-1")
    assert digest(good) == before
    shutil.rmtree(good / "signatures")
    assert digest(good) == before


def test_without_deploy_keys_nobody_looks_at_signatures(good: Path) -> None:
    (good / listing.ENVELOPE).write_text("what is this")
    assert load(good).signed is None
    shutil.rmtree(good / "signatures")
    assert load(good).signed is None


# --------------------------------------------------------------------------- the files


def test_one_bit_of_any_file_is_one_too_many(good: Path) -> None:
    """Whatever the bit makes of the file: it never gets as far as a parser."""
    files = sorted(path for path in good.rglob("*") if path.is_file() and path.name != "set.dsse.json")
    assert len(files) == 6
    for path in files:
        original = path.read_bytes()
        for place in (0, len(original) // 2, len(original) - 1):
            for bit in (0, 5):  # both leave ASCII ASCII
                path.write_bytes(original[:place] + bytes([original[place] ^ 1 << bit]) + original[place + 1 :])
                refused(good, "payload: signs sha256:", "Restore what was signed")
        path.write_bytes(original)
    assert load(good, signers=SIGNERS).signed


def test_no_bit_of_the_envelope_makes_it_say_anything_else(good: Path) -> None:
    """A bit flips into a refusal, or into another spelling (the unused bits of base64, white space) of the same."""
    path = good / listing.ENVELOPE
    original, refusals = path.read_bytes(), 0
    files, expected = listing.read_set(good), verified(listing.read_set(good), SIGNERS)
    for place in range(len(original)):
        changed = original[:place] + bytes([original[place] ^ 1 << (place % 7)]) + original[place + 1 :]
        same = listing.Listing(files.shown, files.identity, files.texts, (), changed.decode())
        try:
            assert verified(same, SIGNERS) == expected
        except Problems:
            refusals += 1
    assert refusals > 0.95 * len(original)


def _add(root: Path) -> None:
    agent = (root / "agents/analyst.yaml").read_text().replace("analyst", "intruder")
    (root / "agents/intruder.yaml").write_text(agent)


def _deny_nobody(root: Path) -> None:
    (root / "denied.yaml").write_text("denied: []\n")


@pytest.mark.parametrize(
    "change",
    [
        _add,
        _deny_nobody,
        lambda root: (root / "templates/reports.yaml").unlink(),
        lambda root: (root / "agents/analyst.yaml").rename(root / "agents/other.yaml"),
        lambda root: (root / "templates/orders.yaml").rename(root / "agents/orders.yaml"),
        # Names and contents exchanged: every byte that was signed is still there.
        lambda root: (
            (root / "templates/orders.yaml").rename(root / "templates/x.yaml"),
            (root / "templates/reports.yaml").rename(root / "templates/orders.yaml"),
            (root / "templates/x.yaml").rename(root / "templates/reports.yaml"),
        ),
        # A border moved from one file into the next.
        lambda root: (root / "people.yaml").write_text((root / "people.yaml").read_text() + "\n"),
    ],
)
def test_a_file_more_or_less_or_elsewhere(good: Path, change: Callable[[Path], Any]) -> None:
    change(good)
    for path in good.rglob("*.yaml"):
        path.chmod(0o644)
    refused(good, "payload: signs sha256:")


def test_a_file_that_is_a_link_is_refused_though_its_content_is_right(good: Path, tmp_path: Path) -> None:
    path = good / "agents/analyst.yaml"
    path.rename(tmp_path / "elsewhere.yaml")
    path.symlink_to(tmp_path / "elsewhere.yaml")
    with pytest.raises(Problems) as caught:
        load(good, signers=SIGNERS)
    assert f"{path}:1: is a symbolic link" in str(caught.value)


# --------------------------------------------------------------------------- the signatures' folder


def test_no_signatures_at_all(good: Path) -> None:
    shutil.rmtree(good / "signatures")
    refused(good, "is missing", "2 people must sign", "broker deploy sign")
    (good / "signatures").mkdir(mode=0o755)
    refused(good, "is missing")


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_an_envelope_that_others_may_write(good: Path, mode: int) -> None:
    (good / listing.ENVELOPE).chmod(mode)
    refused(good, "is writable by")


def test_a_folder_that_others_may_write_or_is_a_link(good: Path, tmp_path: Path) -> None:
    folder = good / "signatures"
    folder.chmod(0o777)
    with pytest.raises(Problems, match=r"signatures:1: is writable by the world"):
        load(good, signers=SIGNERS)
    folder.chmod(0o755)
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Problems, match=r"signatures:1: is a symbolic link"):
        load(good, signers=SIGNERS)


def test_an_envelope_that_is_a_link(good: Path, tmp_path: Path) -> None:
    path = good / listing.ENVELOPE
    path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    refused(good, "is a symbolic link")


def test_another_file_among_the_signatures(good: Path) -> None:
    (good / "signatures/old.dsse.json").write_text("{}")
    with pytest.raises(Problems, match=r"old\.dsse\.json:1: is not part of a deploy set"):
        load(good, signers=SIGNERS)


def _without(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda told: told.pop(name)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_without("payload"), "payload: is missing"),
        (_without("payloadType"), "payloadType: is missing"),
        (_without("signatures"), "signatures: is missing"),
        (lambda told: told.update(signatures=[]), "signatures: "),
        (lambda told: told.update(signatures={"dana-1": "x"}), "signatures: must be a list"),
        (lambda told: told.update(payload=7), "payload: must be a text"),
        (lambda told: told.update(payload="***"), "is not base64"),
        (lambda told: told.update(more="x"), "more: is not a known key"),
        (lambda told: told["signatures"][0].pop("keyid"), "signatures.0.keyid: is missing"),
        (lambda told: told["signatures"][0].update(keyid="Dana-1"), "signatures.0.keyid: must match"),
        (lambda told: told["signatures"][0].update(sig=""), "signatures.0: is not a signature by dana-1"),
        (
            lambda told: told["signatures"].append(told["signatures"][0]),
            "signatures.2: is by a key that signed already",
        ),
    ],
)
def test_what_is_no_envelope(good: Path, change: Callable[[dict[str, Any]], Any], told: str) -> None:
    container = there(good)
    change(container)
    put(good, container)
    refused(good, told)


def test_an_envelope_that_is_no_text_at_all(good: Path) -> None:
    path = good / listing.ENVELOPE
    path.write_text("")
    refused(good, "is empty")
    path.write_bytes(b"\xff\xfe")
    refused(good, "is not UTF-8")
    path.write_text("[" * 5000)
    refused(good, "nested deeper")
    path.write_bytes(b" " * (256 * 1024 + 1))
    refused(good, "is larger than 256 KiB")


# --------------------------------------------------------------------------- whose signatures


@pytest.mark.parametrize("names", [("dana-1",), ("dana-2",), ("dana-1", "dana-2")])
def test_the_author_alone_is_never_enough(good: Path, names: tuple[str, ...]) -> None:
    """Nor with two keys: two keys of one person are one."""
    refused(signed(good, *names), "signatures: are by 1 person, dana (its author); 2 must sign", "alex, kim")


def test_another_person_alone_is_not_enough_either(good: Path) -> None:
    refused(signed(good, "alex-1"), "are by 1 person, alex; 2 must sign")


def test_two_keys_of_one_person_beside_another(good: Path) -> None:
    signed(good, "dana-1", "dana-2", "kim-1")
    assert load(good, signers=SIGNERS).signed
    refused(good, "are by 2 people, dana (its author), kim; 3 must sign", "alex", by=signers(3))


def test_a_false_author_gains_nothing(good: Path) -> None:
    """Dana names somebody else as the author: her signature is one person's still."""
    refused(signed(good, "dana-1", "dana-2", author="nobody"), "are by 1 person, dana; 2 must sign")
    loaded = load(signed(good, "dana-1", "alex-1", author="nobody"), signers=SIGNERS)
    assert loaded.signed is not None and loaded.signed.author == "nobody"


def test_a_key_that_nobody_knows(good: Path) -> None:
    sign(good, STRANGER, "mallory-1")
    refused(
        good, "signatures.2: is by mallory-1, which is not in deploy_keys", "There is: alex-1, dana-1, dana-2, kim-1"
    )


def test_a_key_that_is_not_known_any_more(good: Path) -> None:
    refused(good, "is by alex-1, which is not in deploy_keys", by=signers(**{"dana-1": "dana", "kim-1": "kim"}))


def test_a_stranger_under_the_name_of_a_key(good: Path) -> None:
    signed(good, "dana-1")
    sign(good, STRANGER, "alex-1")
    refused(good, "signatures.1: is not a signature by alex-1")


def test_one_persons_signature_under_another_ones_name(good: Path) -> None:
    signed(good, "dana-1")
    sign(good, KEYS["dana-2"], "alex-1")
    refused(good, "is not a signature by alex-1")
    container = there(signed(good, "dana-1"))
    container["signatures"].append({**container["signatures"][0], "keyid": "alex-1"})
    put(good, container)
    refused(good, "signatures.1: is not a signature by alex-1")


def test_a_broken_signature_beside_enough_good_ones(good: Path) -> None:
    sign(good, STRANGER, "kim-1")
    refused(good, "signatures.2: is not a signature by kim-1")


@pytest.mark.parametrize(
    "change", [{"digest": "0" * 64}, {"serial": 8}, {"serial": 6}, {"author": "alex"}], ids=lambda each: str(*each)
)
def test_signatures_over_another_statement(good: Path, change: dict[str, Any]) -> None:
    """Signatures over one statement never carry another one, and no mixture of both."""
    right = Statement(digest(good), "dana", 7)
    told = {"digest": right.digest, "author": right.author, "serial": right.serial, **change}
    other = envelope.fresh(Statement(**told))
    for name in ("dana-1", "alex-1"):
        envelope.add_signature(other, KEYS[name], name)
    put(good, Envelope(right.encode(), PAYLOAD_TYPE, other.signatures))
    with pytest.raises(Problems) as caught:
        load(good, signers=SIGNERS)
    assert [each.field for each in caught.value.problems] == ["signatures.0", "signatures.1"]
    mixed = envelope.fresh(right)
    envelope.add_signature(mixed, KEYS["dana-1"], "dana-1")
    put(good, Envelope(right.encode(), PAYLOAD_TYPE, {**mixed.signatures, "alex-1": other.signatures["alex-1"]}))
    refused(good, "signatures.1: is not a signature by alex-1")


def test_signatures_over_another_set(good: Path, tmp_path: Path) -> None:
    other = private_copy(HERE / "good", tmp_path / "other")
    (other / "people.yaml").write_text((other / "people.yaml").read_text() + "# another\n")
    signed(other, "dana-1", "alex-1", serial=7)
    shutil.copyfile(other / listing.ENVELOPE, good / listing.ENVELOPE)
    refused(good, f"payload: signs sha256:{digest(other)}, and the files are sha256:{digest(good)}")


@pytest.mark.parametrize(
    ("payload", "type_"),
    [
        (b"", PAYLOAD_TYPE),
        (b"{}", PAYLOAD_TYPE),
        (b"hello", PAYLOAD_TYPE),
        (None, "application/vnd.in-toto+json"),
        (None, ""),
    ],
)
def test_something_else_that_the_same_people_signed(good: Path, payload: bytes | None, type_: str) -> None:
    container = Envelope(Statement(digest(good), "dana", 7).encode() if payload is None else payload, type_, {})
    for name in ("dana-1", "alex-1"):
        envelope.add_signature(container, KEYS[name], name)
    put(good, container)
    refused(good, "is no statement" if payload is not None else f"payloadType: is not {PAYLOAD_TYPE}")


def test_the_bare_statement_signed_without_the_envelopes_encoding(good: Path) -> None:
    """A signature over the payload alone (of a tool that signs whatever it is given) is none."""
    container = there(good)
    for entry in container["signatures"]:
        raw = KEYS[entry["keyid"]].sign(base64.b64decode(container["payload"]))
        entry["sig"] = base64.b64encode(raw).decode()
    put(good, container)
    with pytest.raises(Problems, match="is not a signature by dana-1"):
        load(good, signers=SIGNERS)


def test_signers_that_would_make_it_one_person() -> None:
    public = KEYS["dana-1"].public_key()
    for keys, required in (
        ({"a": Signer("dana", public)}, 1),
        ({"a": Signer("dana", public), "b": Signer("dana", KEYS["dana-2"].public_key())}, 2),
        ({"a": Signer("dana", public), "b": Signer("alex", public)}, 2),
        ({"a": Signer("dana", public), "b": Signer("alex", KEYS["alex-1"].public_key())}, 1),
        ({"a": Signer("dana", public), "b": Signer("alex", KEYS["alex-1"].public_key())}, 3),
        ({}, 0),
    ):
        with pytest.raises(ValueError, match=r"must hold|named twice"):
            Signers(keys, required)


# --------------------------------------------------------------------------- what was checked is what is loaded


def test_the_bytes_that_were_checked_are_the_bytes_that_are_loaded(good: Path) -> None:
    files = listing.read_set(good)
    template = good / "templates/orders.yaml"
    signed_text = template.read_text()
    template.write_text(signed_text.replace("max_ttl: ", "max_ttl: 9"))
    assert template.read_text() != signed_text
    before = load(private_copy(HERE / "good", good.parent / "before")).templates["orders"]
    assert build(files, signers=SIGNERS).templates["orders"] == before
    with pytest.raises(Problems):
        load(good, signers=SIGNERS)


def test_files_that_change_while_they_are_read(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file is opened once: a change between two of them is a set that nobody signed, not a mixture that loads."""
    opened: list[str] = []
    read = listing.read_text

    def changing(path: Path, shown: str, *, follow: bool = True) -> str:
        opened.append(path.name)
        text = read(path, shown, follow=follow)
        if path.name == "people.yaml":  # after the agents, before the templates
            template = good / "templates/orders.yaml"
            template.write_text(template.read_text() + "# changed meanwhile\n")
        return text

    monkeypatch.setattr(listing, "read_text", changing)
    refused(good, "payload: signs sha256:")
    assert len(opened) == len(set(opened)) == 7


def test_no_parser_sees_what_nobody_signed(good: Path) -> None:
    (good / "people.yaml").write_text("&a [*a]: {")
    refused(good, "payload: signs sha256:")


# --------------------------------------------------------------------------- the source


def test_a_set_without_signatures_is_refused_at_the_start(good: Path) -> None:
    shutil.rmtree(good / "signatures")
    with pytest.raises(Problems):
        DeployFiles(good, signers=SIGNERS)


def test_one_without_signatures_later_leaves_the_last_good_one_in_force(good: Path) -> None:
    files = DeployFiles(good, signers=SIGNERS)
    first = files.current
    shutil.rmtree(good / "signatures")
    with pytest.raises(Problems):
        files.load()
    assert files.current is first


# --------------------------------------------------------------------------- one after the other


@pytest.mark.parametrize(
    ("highest", "told"),
    [
        (AcceptedDeploy(6, "a" * 64), None),
        (AcceptedDeploy(8, "a" * 64), "is 7, and serial 8 has been in force"),
        (AcceptedDeploy(7, "a" * 64), "is 7, and another set of that serial has been in force"),
        (None, None),  # the same one again
    ],
)
def test_no_older_set_comes_after_a_newer_one(good: Path, highest: AcceptedDeploy | None, told: str | None) -> None:
    loaded: DeploySet = load(good, signers=SIGNERS)
    problem = overtaken(str(good), loaded, highest or AcceptedDeploy(7, loaded.digest))
    assert (problem is None) == (told is None)
    if problem is not None and told is not None:
        assert f"{good}/{listing.ENVELOPE}:1: serial: {told}" in str(problem)
        assert "sign this content again" in problem.hint


# --------------------------------------------------------------------------- signing


def test_the_second_signs_what_the_first_did(good: Path) -> None:
    shutil.rmtree(good / "signatures")
    first = sign(good, KEYS["dana-1"], "dana-1", author="dana", serial=3)
    second = sign(good, KEYS["alex-1"], "alex-1")
    assert (second.statement, second.keys, second.dropped) == (first.statement, ("dana-1", "alex-1"), ())
    again = sign(good, KEYS["dana-1"], "dana-1", author="dana")  # the same statement, in other words
    assert (again.statement, again.keys) == (first.statement, ("dana-1", "alex-1"))


def test_a_changed_set_is_signed_anew(good: Path) -> None:
    (good / "README.md").write_text("not part of it\n")
    assert sign(good, KEYS["kim-1"], "kim-1").dropped == ()
    (good / "people.yaml").write_text((good / "people.yaml").read_text() + "# changed\n")
    before = (good / listing.ENVELOPE).read_bytes()
    with pytest.raises(Problems, match="is about other files than are here now"):
        sign(good, KEYS["kim-1"], "kim-1")
    assert (good / listing.ENVELOPE).read_bytes() == before
    anew = sign(good, KEYS["kim-1"], "kim-1", author="kim")
    assert (anew.statement.serial, anew.keys, anew.dropped) == (8, ("kim-1",), ("dana-1", "alex-1", "kim-1"))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "is not there yet"),
        ({"author": "dana"}, "there is no serial|no serial to count on from"),
        ({"author": "dana", "serial": 0}, "serial: must be a whole number from 1"),
        ({"author": "dana", "serial": 2**53}, "serial: must be a whole number from 1"),
        ({"author": "Dana Okafor", "serial": 1}, "author: must be a person's name"),
    ],
)
def test_a_statement_that_cannot_be_made(good: Path, options: dict[str, Any], told: str) -> None:
    shutil.rmtree(good / "signatures")
    with pytest.raises(Problems, match=told):
        sign(good, KEYS["dana-1"], "dana-1", **options)
    assert not (good / "signatures").exists()


def test_what_cannot_be_read_is_not_signed(good: Path) -> None:
    (good / "people.yaml").chmod(0o666)
    before = (good / listing.ENVELOPE).read_bytes()
    with pytest.raises(Problems, match="writable by"):
        sign(good, KEYS["kim-1"], "kim-1")
    assert (good / listing.ENVELOPE).read_bytes() == before


def test_the_envelope_is_readable_and_not_writable_under_any_umask(good: Path) -> None:
    shutil.rmtree(good / "signatures")
    before = os.umask(0o000)
    try:
        signed(good, "dana-1", "alex-1")
    finally:
        os.umask(before)
    assert (good / "signatures").stat().st_mode & 0o777 == 0o755
    assert (good / listing.ENVELOPE).stat().st_mode & 0o777 == 0o644
    assert [path.name for path in (good / "signatures").iterdir()] == ["set.dsse.json"]
    assert load(good, signers=SIGNERS).signed


def test_everybody_of_the_table_is_a_person_of_the_tests() -> None:
    assert SIGNERS.people == set(PEOPLE.values())
