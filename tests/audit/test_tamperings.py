"""Whatever is done to a trail, to its checkpoints or to what a witness shows is found, and found where it is.

Sixty tamperings and more, each by name: what the attacker does, and the record that has to be named. The trail has
60 records; 10, 20, ... 60 carry checkpoints over all that is before them, and a witness has the same six.
"""

from __future__ import annotations

import base64
import json
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.audit import checkpoint as checkpoints
from broker.audit import note, offline
from broker.audit.checkpoint import Checkpoint
from broker.audit.offline import Audit
from broker.audit.verify import Finding, Problem
from broker.audit.witnessed import Witnessed
from broker.scope.canonical import canonical_json
from tests.audit import told as tellings
from tests.audit.trail import KEY, NEXT_KEY, ORIGIN, STRANGER, Author, Trail, event, rewritten, written

WHOLE = written()
# (what is done, which problem must be told, at which records; every finding must be at one of these)
Tampering = tuple[Callable[[], Trail], Problem, set[int]]
P = Problem


def edit(record: int = 33, /, **changes: Any) -> Callable[[], Trail]:
    return lambda: WHOLE.edited(record, **changes)


def respell(change: Callable[[str], str], seq: int = 33) -> Callable[[], Trail]:
    return lambda: WHOLE.spelt(seq, change)


def body(seq: int) -> bytes:
    return WHOLE.bodies[seq - 1]


def order(*pick: int) -> Callable[[], Trail]:
    """The trail with exactly these records, in this order."""
    return lambda: replace(WHOLE, bodies=tuple(body(seq) for seq in pick))


def through(last: int) -> tuple[int, ...]:
    return tuple(range(1, last + 1))


def without(*seqs: int) -> Callable[[], Trail]:
    return order(*(seq for seq in through(60) if seq not in seqs))


def fitted(from_seq: int, *bodies: bytes) -> Callable[[], Trail]:
    """Records are other ones, and all quotations after them are computed anew."""
    return lambda: rewritten(WHOLE, from_seq, bodies)


def changed(seq: int) -> bytes:
    return canonical_json({**json.loads(body(seq)), "actor": "spiffe://example.org/agent/nobody"})


def noted(seq: int, change: Callable[[str], str]) -> Callable[[], Trail]:
    """The checkpoint that record ``seq`` carries is altered."""

    def made() -> Trail:
        fields = json.loads(body(seq))
        altered = change(fields["data"]["note"])
        assert altered != fields["data"]["note"]
        return WHOLE.edited(seq, data={"note": altered})

    return made


def checkpointed(sign: Callable[[Author], None], at: int = 30) -> Callable[[], Trail]:
    """A broker's own key signs something wrong at record ``at``; the witness is not asked about it."""

    def made() -> Trail:
        author = Author().go_on(20)
        while len(author.bodies) < at - 1:
            author.write(event(len(author.bodies) + 1))
        sign(author)
        before = tuple(author.notes[:2])
        return replace(author.go_on(60).trail(), notes=before)

    return made


def says(**changes: Any) -> Callable[[Author], None]:
    return lambda author: author.sign(author.said(**changes))


def shown(change: Callable[[list[str]], list[str]]) -> Callable[[], Trail]:
    """The witness shows something else than it was sent."""
    return lambda: replace(WHOLE, notes=tuple(change(list(WHOLE.notes))))


def forged_note(said: Checkpoint, key: Any, name: str = ORIGIN) -> str:
    return note.sign(checkpoints.text(said), name, [key])


def told(index: int) -> Checkpoint:
    return checkpoints.parse(note.parse(WHOLE.notes[index]).text)


def flip_signature(signed: str) -> str:
    text, line = signed.rsplit(" ", 1)
    blob = bytearray(base64.b64decode(line))
    blob[20] ^= 1
    return f"{text} {base64.b64encode(bytes(blob)).decode()}\n"


def other_log(**how: Any) -> Author:
    author = Author(**how)
    author.write(event(1, "of another log"))
    return author.go_on(60)


def resigned() -> Trail:
    """The same records, all checkpoints signed anew by a key that nobody knows, and everything made to fit."""
    return replace(Author(keys=(STRANGER,)).go_on(60).trail(KEY), notes=WHOLE.notes)


def resigned_by_thief() -> Trail:
    """Other records, signed with the broker's own key, stolen: only the witness can tell."""
    return replace(Author().go_on(20).go_on(60, said=" or not").trail(), notes=WHOLE.notes)


def continued_from_backup() -> Trail:
    """Restored to record 35 and gone on from there; the witness has both lives."""
    author = Author().go_on(30)
    for number in range(31, 36):
        author.write(event(number))
    author.go_on(60, said=" after the restore")
    return replace(author.trail(), notes=(*WHOLE.notes, *author.notes[3:]))


def spliced() -> Trail:
    """The beginning of this log and the end of another one of the same broker."""
    other = other_log().trail()
    return replace(WHOLE, bodies=(*WHOLE.bodies[:30], *other.bodies[30:]))


EDITS: dict[str, Tampering] = {
    "edit: number, higher": (edit(seq=34), P.GAP, {33, 34, 32}),
    "edit: number, lower": (edit(seq=12), P.ORDER, {12, 34}),
    "edit: number, negative": (edit(seq=-1), P.ORDER, {-1, 34}),
    "edit: number as text": (edit(seq="33"), P.BODY, {33}),
    "edit: time": (edit(at_ms=1), P.BODY, {33}),
    "edit: time as true": (edit(at_ms=True), P.BODY, {33}),
    "edit: writer": (edit(writer="writer-2"), P.BODY, {33}),
    "edit: tenant": (edit(tenant="other"), P.BODY, {33}),
    "edit: type": (edit(type="lease.void"), P.BODY, {33}),
    "edit: type to checkpoint": (edit(type="audit.checkpoint"), P.SIGNATURE, {33}),
    "edit: actor": (edit(actor="spiffe://example.org/agent/b"), P.BODY, {33}),
    "edit: who vouches": (edit(vouched_by="upstream"), P.BODY, {33}),
    "edit: task": (edit(task_id=""), P.BODY, {33}),
    "edit: lease": (edit(lease_id="lease-34"), P.BODY, {33}),
    "edit: attempt": (edit(attempt_id=""), P.BODY, {33}),
    "edit: holder": (edit(holder="spiffe://example.org/agent/b"), P.BODY, {33}),
    "edit: data emptied": (edit(data={}), P.BODY, {33}),
    "edit: data null": (edit(data=None), P.BODY, {33}),
    "edit: a number in data": (respell(lambda text: text.replace('"n":33', '"n":34')), P.BODY, {33}),
    "edit: a list in data": (respell(lambda text: text.replace('["read"]', '["read","write"]')), P.BODY, {33}),
    "edit: a boolean in data": (respell(lambda text: text.replace('"on":true', '"on":false')), P.BODY, {33}),
    "edit: quotation": (edit(prev="ab" * 32), P.BODY, {33}),
    "edit: quotation that is no hash": (edit(prev="z" * 64), P.BODY, {33}),
    "edit: quotation of the first record": (
        edit(1, prev="ab" * 32),
        P.LINK,
        {1, 10, 20, 30, 40, 50, 60},
    ),
    "edit: one, and the next but one is gone": (
        lambda: (lambda trail: replace(trail, bodies=(*trail.bodies[:34], *trail.bodies[35:])))(
            WHOLE.edited(33, actor="x")
        ),
        P.BODY,
        {33, 36},
    ),
    "edit: one, and the next but one is no record": (
        lambda: WHOLE.edited(33, actor="x").with_body(35, b""),
        P.BODY,
        {33, 35},
    ),
    "edit: quotation in capitals": (respell(lambda text: text[:-200] + text[-200:].upper()), P.BODY, {33}),
    "edit: quotation is another record's": (lambda: edit(prev=json.loads(body(20))["prev"])(), P.BODY, {33}),
    "edit: the first record": (edit(1, actor="x"), P.BODY, {1, 10, 20, 30, 40, 50, 60}),
    "edit: the last record but the checkpoint": (edit(59, actor="x"), P.BODY, {50, 59}),
    "edit: two neighbours": (lambda: WHOLE.edited(33, actor="x").edited(34, actor="x"), P.BODY, {33, 34}),
    "edit: two far apart": (lambda: WHOLE.edited(13, actor="x").edited(44, actor="x"), P.BODY, {13, 44}),
}

SPELLINGS: dict[str, Tampering] = {
    "spelling: a space": (respell(lambda text: text.replace(":", ": ", 1)), P.BODY, {33}),
    "spelling: a line end inside": (respell(lambda text: text + "\r"), P.BODY, {33}),
    "spelling: keys in another order": (
        respell(lambda text: json.dumps(dict(reversed(json.loads(text).items())), separators=(",", ":"))),
        P.BODY,
        {33},
    ),
    "spelling: a key twice, the last one right": (respell(lambda text: '{"actor":"x",' + text[1:]), P.BODY, {33}),
    "spelling: a key twice, the last one wrong": (respell(lambda text: text[:-1] + ',"writer":"x"}'), P.BODY, {33}),
    "spelling: escaped letters": (respell(lambda text: text.replace("ä", "\\u00e4")), P.BODY, {33}),
    "spelling: decomposed letters": (respell(lambda text: unicodedata.normalize("NFD", text)), P.BODY, {33}),
    "spelling: a letter that looks alike": (respell(lambda text: text.replace("a", "а", 1)), P.BODY, {33}),
    "spelling: a float": (respell(lambda text: text.replace('"at_ms":33000', '"at_ms":33000.0')), P.BODY, {33}),
    "spelling: an exponent": (respell(lambda text: text.replace('"at_ms":33000', '"at_ms":33e3')), P.BODY, {33}),
    "spelling: a number over 64 bits": (edit(at_ms=2**70), P.BODY, {33}),
    "spelling: a further field": (edit(note="x"), P.BODY, {33}),
    "spelling: a field less": (respell(lambda text: text.replace(',"writer":"writer-1"', "")), P.BODY, {33}),
    "spelling: no UTF-8": (lambda: WHOLE.with_body(33, body(33).replace("ä".encode(), b"\xe4")), P.BODY, {33}),
    "spelling: a zero byte": (respell(lambda text: text + "\0"), P.BODY, {33}),
    "spelling: cut short": (lambda: WHOLE.with_body(33, body(33)[:-20]), P.BODY, {33}),
    "spelling: nothing": (lambda: WHOLE.with_body(33, b""), P.BODY, {33}),
    "spelling: deep nesting": (lambda: WHOLE.with_body(33, b"[" * 200_000), P.BODY, {33}),
}

PLACES: dict[str, Tampering] = {
    "hole: one": (without(33), P.GAP, {34}),
    "hole: many": (without(*range(23, 38)), P.GAP, {38, 40}),
    "hole: what a checkpoint is about": (without(39), P.GAP, {40}),
    "hole: the first": (without(1), P.GAP, {1, 2, 10, 20, 30, 40, 50, 60}),
    "hole: made to fit": (
        fitted(33, *(body(seq) for seq in range(34, 61))),
        P.CHECKPOINT,
        {30, 39, 40, 49, 50, 59},
    ),
    "order: two swapped": (order(*through(32), 34, 33, *range(35, 61)), P.GAP, {33, 34}),
    "order: two blocks swapped": (
        order(*through(20), *range(31, 41), *range(21, 31), *range(41, 61)),
        P.GAP,
        {*range(21, 32), 40},
    ),
    "order: backwards": (order(*reversed(through(60))), P.GAP, set(range(1, 61))),
    "order: made to fit": (
        fitted(33, body(34), body(33), *(body(seq) for seq in range(35, 61))),
        P.CHECKPOINT,
        {30, 40, 50},
    ),
    "twice: a record": (order(*through(33), 33, *range(34, 61)), P.ORDER, {33}),
    "twice: the whole trail": (order(*through(60), *through(60)), P.ORDER, set(range(1, 61))),
    "twice: an earlier record at the end": (order(*through(60), 5), P.ORDER, {5}),
    "twice: made to fit": (fitted(34, *(body(seq) for seq in range(33, 61))), P.CHECKPOINT, {30, 40, 50}),
    "inserted: beside the real one": (
        lambda: replace(WHOLE, bodies=(*WHOLE.bodies[:32], changed(33), *WHOLE.bodies[32:])),
        P.ORDER,
        {33},
    ),
    "inserted: made to fit": (
        fitted(34, changed(33), *(body(seq) for seq in range(34, 61))),
        P.CHECKPOINT,
        {30, 40, 50},
    ),
    "rewritten: one, made to fit": (
        fitted(33, changed(33), *(body(seq) for seq in range(34, 61))),
        P.CHECKPOINT,
        {30, 40, 50},
    ),
    "rewritten: the first, made to fit": (
        fitted(1, changed(1), *(body(seq) for seq in range(2, 61))),
        P.FORKED,
        {1, 10, 20, 30, 40, 50, 60},
    ),
    "rewritten: after the last checkpoint but one": (
        fitted(55, changed(55), *(body(seq) for seq in range(56, 61))),
        P.CHECKPOINT,
        {50},
    ),
    "truncated: the last record": (order(*through(58)), P.TRUNCATED, {59}),
    "truncated: behind a checkpoint": (order(*through(50)), P.TRUNCATED, {51}),
    "truncated: within": (order(*through(45)), P.TRUNCATED, {46}),
    "truncated: to one record": (order(1), P.TRUNCATED, {1, 2}),
    "truncated: to nothing": (order(), P.TRUNCATED, {1}),
    "truncated: a record cut short at the end": (
        lambda: replace(WHOLE, bodies=(*WHOLE.bodies[:44], body(45)[:50])),
        P.TRUNCATED,
        {45, 46},
    ),
}

SIGNATURES: dict[str, Tampering] = {
    "re-signed: the whole log, by a stranger": (resigned, P.SIGNATURE, {1, 10, 20, 30, 40, 50, 60, 11, 21}),
    "re-signed: other records, by the stolen key": (resigned_by_thief, P.FORKED, {20}),
    "rolled back: and gone on": (continued_from_backup, P.FORKED, {30, 40, 50, 59}),
    "another log: the same broker's": (lambda: replace(other_log().trail(), notes=WHOLE.notes), P.FORKED, {1}),
    "another log: another tenant's": (
        lambda: replace(
            other_log(tenant="other", origin="example.org/jit-broker/other").trail(), notes=WHOLE.notes, origin=ORIGIN
        ),
        P.CHECKPOINT,
        {1, 10, 20, 30, 40, 50, 60},
    ),
    "another log: no witness of its own, but the name": (
        lambda: replace(other_log(tenant="other", origin="example.org/x").trail(), notes=(), origin=ORIGIN),
        P.CHECKPOINT,
        {0, 10, 20, 30, 40, 50, 60},
    ),
    "spliced: two logs": (spliced, P.BODY, {30, 31, 40, 50, 60}),
    "checkpoint: removed": (without(30), P.GAP, {31, 40}),
    "checkpoint: all removed, made to fit": (
        fitted(1, *(body(seq) for seq in through(60) if seq % 10)),
        P.UNSIGNED,
        {1, 10, 55},
    ),
    "checkpoint: emptied": (edit(30, data={}), P.SIGNATURE, {30, 40}),
    "checkpoint: a number for a note": (edit(30, data={"note": 7}), P.SIGNATURE, {30, 40}),
    "checkpoint: says more records": (noted(30, lambda text: text.replace("\n29\n", "\n28\n")), P.SIGNATURE, {30, 40}),
    "checkpoint: another hash": (
        noted(30, lambda text: text.replace("=\nlog", "=\nlog").replace("A", "B", 1)),
        P.SIGNATURE,
        {30, 40},
    ),
    "checkpoint: signature flipped": (noted(30, flip_signature), P.SIGNATURE, {30}),
    "checkpoint: signature taken off": (noted(30, lambda text: text[: text.index("\n\n") + 2]), P.SIGNATURE, {30, 40}),
    "checkpoint: under another name": (
        noted(30, lambda text: text.replace(f"— {ORIGIN}", "— example.org/x")),
        P.SIGNATURE,
        {30},
    ),
    "checkpoint: carriage returns": (noted(30, lambda text: text.replace("\n", "\r\n")), P.SIGNATURE, {30, 40}),
    "checkpoint: a further line": (noted(30, lambda text: text.replace("\n\n", "\nx\n\n")), P.SIGNATURE, {30, 40}),
    "checkpoint: another signature of the same key beside it": (
        noted(30, lambda text: text + text[text.index("—") :]),
        P.SIGNATURE,
        {30, 40},
    ),
    "checkpoint: an earlier one again": (noted(30, lambda _: WHOLE.notes[1]), P.CHECKPOINT, {29, 30, 40}),
    "checkpoint: an earlier one in a record of its own": (
        checkpointed(lambda author: author.carry(author.notes[0])),
        P.CHECKPOINT,
        {30, 40},
    ),
    "checkpoint: of another log with the same key": (
        checkpointed(lambda author: author.carry(other_log().notes[2])),
        P.CHECKPOINT,
        {20, 30, 40},
    ),
    "checkpoint: by a stranger": (
        checkpointed(lambda author: author.carry(forged_note(author.said(), STRANGER))),
        P.SIGNATURE,
        {30, 40},
    ),
    "checkpoint: by a stranger under our key's hash": (
        checkpointed(
            lambda author: author.carry(
                forged_note(author.said(), STRANGER).replace(
                    _blob(forged_note(author.said(), STRANGER)), _rehashed(forged_note(author.said(), STRANGER))
                )
            )
        ),
        P.SIGNATURE,
        {30, 40},
    ),
    "checkpoint: about a record to come": (checkpointed(says(count=31)), P.CHECKPOINT, {30}),
    "checkpoint: about fewer than the one before": (checkpointed(says(count=9)), P.CHECKPOINT, {9, 30}),
    "checkpoint: over another hash": (checkpointed(says(head=bytes(32))), P.CHECKPOINT, {20}),
    "checkpoint: of another log": (checkpointed(says(log=bytes(32))), P.CHECKPOINT, {30}),
    "checkpoint: of another origin": (checkpointed(says(origin="example.org/x")), P.SIGNATURE, {30}),
    "checkpoint: of another tenant": (checkpointed(says(tenant="other")), P.CHECKPOINT, {30}),
    "checkpoint: of another writer": (checkpointed(says(writer="writer-2")), P.CHECKPOINT, {30}),
    "checkpoint: skips the one before": (checkpointed(says(previous=bytes(32))), P.CHECKPOINT, {30}),
    "checkpoint: older than the one before": (checkpointed(says(at_ms=5)), P.CHECKPOINT, {30}),
}

WITNESSES: dict[str, Tampering] = {
    "witness: empty": (shown(lambda notes: []), P.WITNESS, {0}),
    "witness: something else": (shown(lambda notes: ["not a checkpoint\n"]), P.WITNESS, {0}),
    "witness: one missing": (shown(lambda notes: [*notes[:2], *notes[3:]]), P.WITNESS, {39}),
    "witness: out of order": (
        shown(lambda notes: [*notes[:2], notes[3], notes[2], *notes[4:]]),
        P.WITNESS,
        {29, 30, 39, 49},
    ),
    "witness: forged, a stranger's": (
        shown(lambda notes: [*notes, forged_note(replace(told(5), count=70, at_ms=10**6), STRANGER)]),
        P.WITNESS,
        {70},
    ),
    "witness: forged, flipped": (shown(lambda notes: [*notes[:5], flip_signature(notes[5])]), P.WITNESS, {59}),
    "witness: edited count": (shown(lambda notes: [notes[0].replace("\n9\n", "\n8\n"), *notes[1:]]), P.WITNESS, {8}),
    "witness: of another log of the same key": (shown(lambda notes: other_log().notes), P.FORKED, {1}),
    "witness: two logs": (shown(lambda notes: [*notes[:3], *other_log().notes[3:]]), P.WITNESS, {1, 39, 49, 59}),
    "witness: two of the same record": (
        shown(
            lambda notes: [
                *notes,
                forged_note(
                    replace(told(5), head=bytes(32), previous=checkpoints.digest(checkpoints.text(told(5)))), KEY
                ),
            ]
        ),
        P.FORKED,
        {59},
    ),
    "witness: a lone one of the future": (
        shown(lambda notes: [forged_note(replace(told(5), count=99), KEY)]),
        P.TRUNCATED,
        {61},
    ),
    "witness: a fork signed by the broker's key": (
        shown(lambda notes: [*notes[:5], forged_note(replace(told(5), head=bytes(32)), KEY)]),
        P.FORKED,
        {50},
    ),
}

ALL = EDITS | SPELLINGS | PLACES | SIGNATURES | WITNESSES


def _blob(signed: str) -> str:
    return signed.rsplit(" ", 1)[1].strip()


def _rehashed(signed: str) -> str:
    blob = base64.b64decode(_blob(signed))
    return base64.b64encode(note.key_hash(ORIGIN, KEY.public_key()) + blob[4:]).decode()


TOLD = tellings.read()


def test_there_are_sixty_and_each_is_told() -> None:
    assert len(ALL) >= 60
    assert TOLD.keys() == ALL.keys()


@pytest.mark.parametrize("name", ALL)
def test_it_is_found_and_located(name: str) -> None:
    tamper, problem, places = ALL[name]
    audit, found = tamper().verify()
    shown = [str(each) for each in found]
    assert any(each.problem is problem and each.sequence in places for each in found), shown
    assert {each.sequence for each in found} <= places, shown
    assert tellings.lines(audit, found) == TOLD[name]


def test_an_honest_trail_has_no_findings() -> None:
    audit, found = WHOLE.verify(closed=True)
    assert found == []
    assert (audit.records, audit.signed, audit.witnessed, audit.checkpoints) == (60, 59, 59, 6)


def test_what_a_witness_was_sent_twice_it_has_once() -> None:
    twice = tuple(each for each in WHOLE.notes for _ in range(2))
    audit, found = replace(WHOLE, notes=twice).verify(closed=True)
    assert (found, audit.witnessed) == ([], 59)


def test_a_witness_that_was_not_asked_yet_has_seen_nothing() -> None:
    witness = Witnessed("w", WHOLE.notes, WHOLE.keys)
    assert (witness.name, witness.agreed, witness.next_count, witness.log, witness.origin) == ("w", 0, 0, b"", "")
    assert list(witness.advance()) == []
    assert (witness.next_count, witness.log, witness.origin) == (9, told(0).log, ORIGIN)
    assert list(witness.finish(59)) == []
    assert witness.next_count == 0


def test_where_there_is_nothing_at_all_nothing_is_missing() -> None:
    audit = Audit(WHOLE.keys)
    assert (audit.log, audit.records) == (b"", 0)
    audit, found = replace(WHOLE, bodies=(), notes=()).verify()
    assert [each.problem for each in found] == [P.WITNESS, P.UNSIGNED]
    assert (audit.log, audit.records, audit.signed) == (b"", 0, 0)


def test_a_trail_is_open_unless_it_is_said_to_be_closed() -> None:
    author = Author().go_on(20)
    author.write(event(21))
    assert list(Audit(WHOLE.keys).verify(author.bodies)) == []


@pytest.mark.parametrize(("at_ms", "late"), [(-1, True), (0, False)])
def test_the_first_checkpoint_is_of_no_time_before_1970(at_ms: int, late: bool) -> None:
    author = Author(every=1000)
    author.write(event(1))
    author.sign(author.said(at_ms=at_ms))
    _, found = author.trail().verify(witness=False)
    assert [each.detail for each in found] == ["it is not later than the checkpoint before it"] * late


@pytest.mark.parametrize("missing", [{27}, {26, 27}, {28}])
@pytest.mark.parametrize("right", [True, False])
def test_a_hole_between_a_checkpoint_and_what_it_is_about_hides_nothing_else(missing: set[int], right: bool) -> None:
    author = Author().go_on(20)
    for number in range(21, 26):
        author.write(event(number))
    said = author.said() if right else author.said(head=bytes(32))
    for number in range(26, 30):
        author.write(event(number))
    author.sign(said)
    kept = tuple(each for seq, each in enumerate(author.bodies, 1) if seq not in missing)
    _, found = replace(author.trail(), bodies=kept).verify(witness=False)
    told = [(max(missing) + 1, P.GAP)] + [(20, P.CHECKPOINT)] * (not right)
    assert [(each.sequence, each.problem) for each in found] == told


def test_behind_a_hole_longer_than_it_may_be_about_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "REACH", 5)
    author, said = Author(every=1000), None
    for number in range(1, 21):
        author.write(event(number))
        if number == 16:
            said = author.said()
    author.sign(said)
    _, found = replace(author.trail(), bodies=(*author.bodies[:10], author.bodies[20])).verify(witness=False)
    assert [(each.sequence, each.problem) for each in found] == [(21, P.GAP)]


@pytest.mark.parametrize(
    ("behind", "head", "told"),
    [
        (4, None, []),
        (4, bytes(32), ["record 1: CHECKPOINT: records 1 to 6 are not those that checkpoint 10 was signed over"]),
        # As far back as it may be about: it is held against that record, too.
        (5, None, []),
        (5, bytes(32), ["record 1: CHECKPOINT: records 1 to 5 are not those that checkpoint 10 was signed over"]),
        # Further back it is not, whatever it says there.
        (
            6,
            bytes(32),
            [
                "record 10: CHECKPOINT: it is about record 4, which is not one of those between the checkpoint before"
                " and itself"
            ],
        ),
        (
            6,
            None,
            [
                "record 10: CHECKPOINT: it is about record 4, which is not one of those between the checkpoint before"
                " and itself"
            ],
        ),
    ],
)
def test_how_far_back_a_checkpoint_may_be_about(
    behind: int, head: bytes | None, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline, "REACH", 5)
    author, said = Author(every=1000), None
    for number in range(1, 10):
        author.write(event(number))
        if number == 10 - behind:
            said = author.said()
    assert said is not None
    author.sign(said if head is None else replace(said, head=head))
    _, found = author.trail().verify(witness=False)
    assert [str(each) for each in found] == told


def test_what_comes_after_the_last_checkpoint_is_told_as_not_covered() -> None:
    author = Author().go_on(60)
    author.write(event(61, "by anybody"))
    audit, found = author.trail().verify()
    assert (found, audit.records, audit.signed) == ([], 61, 59)
    _, found = author.trail().verify(closed=True)
    assert found == [Finding(60, P.UNSIGNED, "no checkpoint covers records 60 to 61")]


def test_without_a_witness_a_cut_tail_and_a_stolen_key_are_not_seen() -> None:
    # What docs/audit.md says that a witness is for.
    for tamper in (order(*through(50)), resigned_by_thief):
        _, found = tamper().verify(witness=False)
        assert found == []


def test_a_key_is_changed_without_a_gap() -> None:
    author = Author().go_on(20)
    author.keys = (KEY, NEXT_KEY)
    author.go_on(40)
    author.keys = (NEXT_KEY,)
    author.go_on(60)
    assert author.trail(KEY, NEXT_KEY).verify(closed=True)[1] == []
    # Whoever knows one of them alone believes what it signed, and is told of the rest.
    _, found = author.trail(KEY).verify(witness=False)
    assert {(each.sequence, each.problem) for each in found} == {(50, P.SIGNATURE), (60, P.SIGNATURE)}


@settings(max_examples=50)
@given(st.integers(1, 60), st.integers(0, 10_000), st.integers(1, 255))
def test_any_byte_of_any_record(seq: int, place: int, mask: int) -> None:
    stored = bytearray(body(seq))
    stored[place % len(stored)] ^= mask
    _, found = WHOLE.with_body(seq, bytes(stored)).verify(closed=True)
    assert any(each.sequence in (seq - 1, seq, seq + 1) for each in found)


@settings(max_examples=50)
@given(st.integers(0, 5), st.integers(0, 10_000), st.characters(codec="utf-8"))
def test_any_character_of_what_a_witness_shows(index: int, place: int, other: str) -> None:
    signed = WHOLE.notes[index]
    place %= len(signed)
    altered = signed[:place] + other + signed[place + 1 :]
    notes = (*WHOLE.notes[:index], altered, *WHOLE.notes[index + 1 :])
    _, found = replace(WHOLE, notes=notes).verify()
    assert bool(found) == (altered != signed)
