"""Two MinIO servers with two drives each, one cluster."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import requests

from broker.dev.files import private_directory
from broker.dev.loopback import LOOPBACK, free_port
from broker.dev.minio import BROKER_USER, BUCKET, ROOT_USER, MinioFacts, make_user, put_reports, reading
from broker.dev.process import ServerProcess
from broker.secret import Secret
from tests.patience import PATIENCE, until

_ROOT, _BROKER = Secret("root-of-the-cluster"), Secret("broker-of-the-cluster")


@contextlib.contextmanager
def two_nodes(binary: Path, directory: Path) -> Iterator[tuple[MinioFacts, MinioFacts]]:
    """Both, ready. One that thinks it is in a container must be told which is itself."""
    places = [private_directory(directory / f"cluster-{number}") for number in (1, 2)]
    addresses = [f"{LOOPBACK}:{free_port()}" for _ in places]
    drives = [f"http://{address}{place}/{{1...2}}" for address, place in zip(addresses, places, strict=True)]
    nodes = [MinioFacts(f"http://{address}", _ROOT, _BROKER) for address in addresses]
    with contextlib.ExitStack() as stack:
        for place, address in zip(places, addresses, strict=True):
            server = ServerProcess(
                "minio",
                place,
                stop_signal=signal.SIGTERM,
                environment={
                    "HOME": str(place),
                    "MINIO_ROOT_USER": ROOT_USER,
                    "MINIO_ROOT_PASSWORD": _ROOT.reveal(),
                    "MINIO_BROWSER": "off",
                    "MINIO_UPDATE": "off",
                    "MINIO_CI_CD": "1",
                    "_MINIO_SERVER_LOCAL": address,
                },
            )
            stack.callback(server.stop)
            server.start([binary, "server", "--address", address, *drives], cwd=place)
        until(lambda: all(map(_is_ready, nodes)))
        put_reports(nodes[0])
        make_user(nodes[0], BROKER_USER, _BROKER, reading(BUCKET))
        yield nodes[0], nodes[1]


def _is_ready(node: MinioFacts) -> bool:
    try:
        return requests.get(f"{node.endpoint}/minio/health/cluster", timeout=PATIENCE).ok
    except requests.RequestException:
        return False
