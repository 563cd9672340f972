"""The set that is measured is one that brokerd takes."""

from __future__ import annotations

from pathlib import Path

from bench.deploy import CONNECTOR, TRUST_DOMAIN, write_deploy_set
from broker.deployfiles import listing
from broker.deployfiles.load import build


def test_brokerd_takes_it(tmp_path: Path) -> None:
    write_deploy_set(tmp_path / "deploy", agents=3, templates=2)
    made = build(listing.read_set(tmp_path / "deploy"), TRUST_DOMAIN, to_serve=True)
    assert (len(list(made.registry)), set(made.connectors)) == (3, {CONNECTOR})
    assert {each.connector for each in made.templates.values()} == {CONNECTOR}
