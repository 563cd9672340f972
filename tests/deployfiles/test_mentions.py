"""Words in policies that nothing can have: a forbid about one would be an open door, so it is told."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from broker.cli.check import check
from broker.deployfiles import load
from broker.files import Problems
from tests.deployfiles.test_broken import HERE, private_copy

HEAD = '@id("word") @reason("no")\nforbid (principal, action, resource) when {\n'


def set_with(tmp_path: Path, condition: str, folder: str = "policies") -> Path:
    path = private_copy(HERE / "good", tmp_path / "set")
    (path / folder).mkdir(mode=0o700, exist_ok=True)
    (path / folder / "words.cedar").write_text(f"{HEAD}  {condition}\n}};\n")
    (path / folder / "words.cedar").chmod(0o600)
    return path


@pytest.mark.parametrize("folder", ["policies", "shadow_policies"])
@pytest.mark.parametrize(
    ("condition", "message", "there_is"),
    [
        ('principal.tier == "advisry"', "'advisry' is no tier", "'advisory', 'autonomous', 'semi-autonomous'"),
        ('["write", "wirte"].contains(resource.access)', "'wirte' is no access class", "'write'"),
        ('resource.sensitivity != "resticted"', "'resticted' is no sensitivity", "'restricted'"),
        ('resource.blast_radius == "Account"', "'Account' is no blast radius", "'account'"),
        ('"irreversable" == resource.reversibility', "'irreversable' is no reversibility", "'irreversible'"),
        ('resource.contract_class == "EXPIRYONLY"', "'EXPIRYONLY' is no contract class", "'EXPIRY_ONLY'"),
        ('resource.binding == "none"', "'none' is no binding", "'NONE'"),
        ('context.delivery == "proxied"', "'proxied' is no way of delivery", "'proxy'"),
        ('context.plan == "confirm"', "'confirm' is no state of a plan", "'confirmed'"),
        ('principal.tier == "\u0430dvisory"', "'\\u0430dvisory' is no tier", "'advisory'"),
    ],
)
def test_a_word_that_can_be_none_is_a_problem(
    tmp_path: Path, folder: str, condition: str, message: str, there_is: str
) -> None:
    with pytest.raises(Problems) as caught:
        load(set_with(tmp_path, condition, folder))
    (problem,) = caught.value.problems
    assert (problem.file.rpartition("set/")[2], problem.line) == (f"{folder}/words.cedar", 3)
    assert (problem.field, problem.message) == ("word", message)
    assert there_is in problem.hint


def test_every_word_that_there_is_is_taken(tmp_path: Path) -> None:
    words = (
        'principal.tier == "semi-autonomous" && resource.access == "network" && resource.sensitivity == "public" &&'
        ' resource.blast_radius == "organization" && resource.reversibility == "hard" && context.plan == "" &&'
        ' resource.contract_class == "STATIC" && resource.binding == "KEY" && context.delivery == "proxy"'
    )
    load(set_with(tmp_path, words))


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ('resource.environment == "prodction"', "no agent or template has the environment 'prodction'"),
        ('principal.environments.contains("prodction")', "no agent or template has the environment 'prodction'"),
        ('principal.roles.contains("anlyst")', "no agent or template has the role 'anlyst'"),
        ('resource.account == "dve"', "no agent or template has the account 'dve'"),
        ('resource.connector == "vualt"', "no agent or template has the connector 'vualt'"),
    ],
)
def test_a_word_that_nothing_has_is_a_warning(tmp_path: Path, condition: str, message: str) -> None:
    path = set_with(tmp_path, condition)
    result = CliRunner().invoke(check, [str(path)])
    assert result.exit_code == 0
    (warning,) = result.stderr.splitlines()
    assert warning.startswith(f"warning: {path}/policies/words.cedar:3: word: {message} (There is: ")
    (checked,) = json.loads(CliRunner().invoke(check, [str(path), "--format", "json"]).stdout)
    assert len(checked["warnings"]) == 1


def test_words_that_something_has_are_not(tmp_path: Path) -> None:
    condition = 'resource.environment == "dev" && resource.account == "dev" && resource.connector == "vault"'
    result = CliRunner().invoke(check, [str(set_with(tmp_path, condition))])
    assert (result.exit_code, result.stderr) == (0, "")
