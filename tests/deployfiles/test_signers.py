"""Keys out of brokerd's configuration: each usable, each somebody's, none of them twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.config import load_config
from broker.deployfiles.signers import Signers, signers_of
from broker.files import Problems
from tests.config.test_config import MINIMAL
from tests.signing import KEYS, PEOPLE, deploy_section, private_pem, public_pem


def told(tmp_path: Path, deploy: dict[str, Any]) -> Signers | None:
    document = yaml.safe_load(MINIMAL)
    document["deploy"] = deploy
    file = tmp_path / "brokerd.yaml"
    file.write_text(yaml.safe_dump(document))
    file.chmod(0o600)
    return signers_of(load_config(file))


def refused(tmp_path: Path, deploy: dict[str, Any], *parts: str) -> None:
    with pytest.raises(Problems) as caught:
        told(tmp_path, deploy)
    for part in parts:
        assert part in str(caught.value)


def in_file(tmp_path: Path, name: str, text: str) -> dict[str, str]:
    path = tmp_path / f"{name}.pub"
    path.write_text(text)
    path.chmod(0o644)
    return {"person": PEOPLE.get(name, name), "file": path.name}


def test_none_are_asked_for_by_default(tmp_path: Path) -> None:
    assert told(tmp_path, {"directory": "deploy"}) is None


def test_keys_inline_and_in_files(tmp_path: Path) -> None:
    section = deploy_section()
    section["deploy_keys"]["kim-1"] = in_file(tmp_path, "kim-1", public_pem(KEYS["kim-1"]))
    signers = told(tmp_path, section)
    assert signers is not None
    assert (signers.required, signers.people) == (2, {"dana", "alex", "kim"})
    assert signers.by_key["kim-1"].key == KEYS["kim-1"].public_key()


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"deploy_keys": {}}, ("deploy.deploy_keys: ", "at least 1 item")),
        ({"deploy_keys": None}, ("deploy.deploy_keys: is empty",)),
        ({"deploy_signatures_required": None}, ("deploy.deploy_signatures_required: is empty",)),
        ({"deploy_signatures_required": 0}, ("deploy_signatures_required: must be greater than or equal to 2",)),
        ({"deploy_signatures_required": 1}, ("deploy_signatures_required: must be greater than or equal to 2",)),
        ({"deploy_signatures_required": "2"}, ("deploy_signatures_required: must be a valid integer",)),
        # Four keys, but three people.
        ({"deploy_signatures_required": 4}, ("deploy_signatures_required <= people must hold: 4 > 3",)),
    ],
)
def test_a_section_that_would_mean_less_than_it_looks(
    tmp_path: Path, change: dict[str, Any], parts: tuple[str, ...]
) -> None:
    refused(tmp_path, {**deploy_section(), **change}, *parts)


def test_a_number_without_keys(tmp_path: Path) -> None:
    refused(tmp_path, {"directory": "x", "deploy_signatures_required": 2}, "needs deploy_keys")


@pytest.mark.parametrize(
    ("entry", "part"),
    [
        ({"person": "kim"}, "deploy.deploy_keys.kim-1: needs one of file and pem"),
        ({"person": "kim", "pem": public_pem(KEYS["kim-1"]), "file": "x"}, "needs one of file and pem"),
        ({"pem": public_pem(KEYS["kim-1"])}, "deploy.deploy_keys.kim-1.person: is missing"),
        ({"person": "Kim", "pem": public_pem(KEYS["kim-1"])}, "deploy.deploy_keys.kim-1.person: must match"),
        ({"person": "kim", "pem": "kim"}, "deploy.deploy_keys.kim-1.pem: is not a public key in PEM"),
        ({"person": "kim", "pem": private_pem(KEYS["kim-1"]).decode()}, "pem: is a private key"),
        ({"person": "kim", "file": "absent.pub"}, "absent.pub:1: cannot be read"),
        ({"person": "kim", "file": "deploy/kim.pub"}, "kim-1.file: lies in the deploy directory"),
        ({"person": "kim", "file": "deploy/../deploy/x/../kim.pub"}, "kim-1.file: lies in the deploy directory"),
    ],
)
def test_an_entry_that_is_no_key(tmp_path: Path, entry: dict[str, str], part: str) -> None:
    section = deploy_section()
    section["deploy_keys"]["kim-1"] = entry
    refused(tmp_path, section, part)


def test_a_private_key_in_the_wrong_place_is_not_quoted(tmp_path: Path) -> None:
    section = deploy_section()
    pem = private_pem(KEYS["kim-1"]).decode()
    section["deploy_keys"]["kim-1"] = {"person": "kim", "pem": pem}
    with pytest.raises(Problems) as caught:
        told(tmp_path, section)
    assert pem.splitlines()[1] not in str(caught.value)


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)])
def test_a_key_of_another_kind(tmp_path: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    section = deploy_section()
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    section["deploy_keys"]["kim-1"] = in_file(tmp_path, "kim-1", pem)
    refused(tmp_path, section, "kim-1.pub:1: deploy_keys.kim-1: is not an Ed25519 key")


def test_a_key_file_that_others_may_write(tmp_path: Path) -> None:
    section = deploy_section()
    section["deploy_keys"]["kim-1"] = in_file(tmp_path, "kim-1", public_pem(KEYS["kim-1"]))
    (tmp_path / "kim-1.pub").chmod(0o664)
    refused(tmp_path, section, "kim-1.pub:1: is writable by its group")


def test_one_key_for_two_people(tmp_path: Path) -> None:
    """Else the one who has it signs for both."""
    section = deploy_section()
    section["deploy_keys"]["kim-1"] = in_file(tmp_path, "kim-1", public_pem(KEYS["alex-1"]))
    refused(tmp_path, section, "brokerd.yaml:", "deploy.deploy_keys.kim-1: is the same key as alex-1")
