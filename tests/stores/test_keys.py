"""Keys by reference: what is a key, and what is refused."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from broker.errors import InvalidInput, Reason, Tampered
from broker.keys import FileKeyRing, key_id, new_key
from broker.ports.keys import KeyRing

KEY = base64.b64encode(bytes(range(32))).decode()
OTHER = base64.b64encode(bytes(range(100, 132))).decode()


def written(path: Path, text: str, mode: int = 0o600) -> str:
    path.write_text(text)
    path.chmod(mode)
    return f"file:{path}"


def refused(*references: str) -> str:
    with pytest.raises(InvalidInput) as caught:
        FileKeyRing(references)
    assert caught.value.reason is Reason.CONFIG_INVALID
    return str(caught.value)


def test_a_key_in_a_file_and_one_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLD_KEY", OTHER)
    ring: KeyRing = FileKeyRing([written(tmp_path / "key", KEY + "\n"), "env:OLD_KEY"])
    name, key = ring.current()
    assert (name, key) == (key_id(bytes(range(32))), bytes(range(32)))
    assert ring.find(name) == key
    assert ring.find(key_id(bytes(range(100, 132)))) == bytes(range(100, 132))


def test_an_unknown_key(tmp_path: Path) -> None:
    ring = FileKeyRing([written(tmp_path / "key", KEY)])
    with pytest.raises(Tampered) as caught:
        ring.find("nothing")
    assert caught.value.metadata == {"keyId": "nothing"}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_key_that_others_can_reach(tmp_path: Path, mode: int) -> None:
    refused(written(tmp_path / "key", KEY, mode))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "not base64 !",
        base64.b64encode(bytes(range(31))).decode(),  # one byte short
        base64.b64encode(bytes(64)).decode(),  # long, and nothing
        base64.b64encode(b"ab" * 32).decode(),
        KEY[:-1],
        f"{KEY}\n{OTHER}",
        "é" * 44,
    ],
)
def test_what_is_no_key(tmp_path: Path, text: str) -> None:
    message = refused(written(tmp_path / "key", text))
    assert not text.strip() or text not in message  # whatever it is, it is not repeated


def test_references_that_lead_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTHING_HERE", raising=False)
    refused()
    refused(f"file:{tmp_path / 'absent'}")
    refused("env:NOTHING_HERE")
    assert KEY not in refused(KEY)  # the key itself instead of a reference


def test_the_same_key_twice(tmp_path: Path) -> None:
    refused(written(tmp_path / "a", KEY), written(tmp_path / "b", KEY))


def test_changing_the_key_without_a_gap(tmp_path: Path) -> None:
    current, older = tmp_path / "current", tmp_path / "older"
    ring = FileKeyRing([written(current, KEY), written(older, OTHER)])
    first, _ = ring.current()
    fresh = new_key()
    written(current, fresh)
    written(older, KEY)
    ring.reload()
    name, key = ring.current()
    assert key == base64.b64decode(fresh)
    assert ring.find(first) == bytes(range(32))  # what it signed is still known
    current.chmod(0o644)
    with pytest.raises(InvalidInput):
        ring.reload()
    assert ring.current() == (name, key)  # all or nothing


def test_fresh_keys_are_keys_and_differ(tmp_path: Path) -> None:
    keys = [new_key() for _ in range(3)]
    ring = FileKeyRing([written(tmp_path / f"{n}", key) for n, key in enumerate(keys)])
    assert len({ring.current()[1], *(base64.b64decode(key) for key in keys)}) == 3
