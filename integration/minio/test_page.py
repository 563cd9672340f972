"""The page, carried out: its block is typed on the real MinIO, and its user is the one the connector wants."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from broker.clock import SystemClock
from broker.connectors.minio_sts import MinioSts, MinioStsSettings
from broker.dev.minio import BUCKET, REPORTS, ROOT_USER, MinioServer
from broker.secret import Secret
from integration.minio.sessions import ended, held
from tests.connectors.harness_minio import REPORT, said_to
from tests.house.project import ROOT, blocks
from tests.patience import PATIENCE

SECRET = Secret("secret-of-the-page")
PAGE = ROOT / "docs" / "connectors" / "minio-sts.md"


async def test_what_the_page_says_sets_it_up(binary: Path, directory: Path, tmp_path: Path) -> None:
    (typed,) = [content for language, content in blocks(PAGE.read_text()) if language == "sh"]
    kept = tmp_path / "secret"
    kept.write_text(SECRET.reveal())
    with MinioServer(binary, directory / "page") as server:
        minio = server.facts
        here = {"/run/secrets/minio-jit-broker": str(kept), "https://minio.example.org:9000": minio.endpoint}
        for word, place in here.items():
            assert word in typed
            typed = typed.replace(word, place)
        root = {"MINIO_ROOT_USER": ROOT_USER, "MINIO_ROOT_PASSWORD": minio.root_password.reveal()}
        done = subprocess.run(
            ["bash", "-euc", typed],
            cwd=tmp_path,
            env={**os.environ, **root},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        settings = MinioStsSettings(minio.endpoint, "jit-broker", (BUCKET,), timeout=PATIENCE, threads=2)
        connector = MinioSts("minio", settings, lambda: SECRET, SystemClock())
        assert await connector.examine() == []
        made = await held(connector)
        assert said_to(minio, made.session) == REPORTS[REPORT]
        await ended(connector, made)
        assert said_to(minio, made.session) == "InvalidAccessKeyId"
        await connector.close()
