"""What every witness does, on a real one of each kind; S3 is moto's double, which keeps locks and denies nothing."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from moto.server import ThreadedMotoServer

from broker.audit.note import MOST_SIGNATURES
from broker.config import HttpWitness, S3Witness, SyslogWitness
from broker.ports.trail import Witness
from broker.secret import Secret
from broker.witnesses.file import FileWitness
from broker.witnesses.http import HttpWitness as Http
from broker.witnesses.s3 import S3Witness as Bucket
from broker.witnesses.syslog import SyslogWitness as Syslog
from broker.witnesses.syslog import message
from tests.forge import authority
from tests.patience import PATIENCE
from tests.witnesses.fake import outgoing
from tests.witnesses.services import Collector, Keeper, answering, collecting, keeper

KEYS = {"aws_access_key_id": "id", "aws_secret_access_key": "secret", "region_name": "us-east-1"}


def resolve(reference: str) -> Secret:
    return Secret(reference.removeprefix("env:"))


@pytest.fixture(scope="module")
def moto() -> Any:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    server.stop()


def bucket(moto: str, name: str) -> Any:
    client = boto3.client("s3", endpoint_url=moto, **KEYS)
    client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    return client


def settings_of(model: Any, **values: Any) -> Any:
    """As they stand in the configuration."""
    return model.model_validate({**values, "timeout": f"{PATIENCE:g}s"}, context={"base": Path("/")})


def s3_settings(moto: str, name: str, **changes: Any) -> Any:
    keys = {"access_key_id": "env:ID", "secret_access_key": "env:SECRET"}
    return settings_of(S3Witness, bucket=name, prefix="audit/", endpoint_url=moto, **keys, **changes)


@asynccontextmanager
async def keeping() -> AsyncIterator[tuple[Keeper, Any]]:
    async with keeper() as (kept, address):
        yield kept, settings_of(HttpWitness, url=f"{address}/notes", token="env:TOKEN")


@pytest.fixture(params=["file", "s3", "http"])
async def witness(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Witness]:
    if request.param == "file":
        yield FileWitness(tmp_path / "notes")
    elif request.param == "s3":
        moto = request.getfixturevalue("moto")
        name = f"b-{abs(hash(request.node.name)):x}"
        bucket(moto, name)
        yield Bucket(s3_settings(moto, name), resolve)
    else:
        async with keeping() as (_, settings):
            made = Http(settings, resolve)
            yield made
            await made.close()


# ------------------------------------------------------------------ what every one does that can be asked


async def test_one_that_is_empty_has_seen_nothing(witness: Witness) -> None:
    assert await witness.newest(-1) is None


async def test_the_newest_is_the_last_it_was_sent(witness: Witness) -> None:
    for count in (1, 5, 9):
        await witness.add(outgoing(count))
        assert await witness.newest(-1) == outgoing(count).note
    assert await witness.newest(8999) == outgoing(9).note
    assert await witness.newest(9000) is None


async def test_the_same_again_is_fine(witness: Witness) -> None:
    for count in (1, 1, 5, 5):
        await witness.add(outgoing(count))
    assert await witness.newest(-1) == outgoing(5).note


async def test_after_a_recovery_fewer_records_of_later_are_newer(witness: Witness) -> None:
    await witness.add(outgoing(90))
    await witness.add(outgoing(40, at_ms=91_000))
    assert await witness.newest(90_000) == outgoing(40, at_ms=91_000).note


async def test_the_newest_is_the_latest_though_earlier_ones_came_again(witness: Witness) -> None:
    """F35: a ledger that was put back under its broker sends once more what it had sent before."""
    for count in (5, 6, 7, 9, 5, 6, 7):
        await witness.add(outgoing(count))
    assert await witness.newest(7000) == outgoing(9).note


# ------------------------------------------------------------------ files


async def test_of_two_of_one_time_in_a_file_the_newest_is_the_last(tmp_path: Path) -> None:
    witness = FileWitness(tmp_path / "notes")
    for outgoing_ in (outgoing(9), outgoing(5), outgoing(3, at_ms=9000)):
        await witness.add(outgoing_)
    assert await witness.newest(5000) == outgoing(3, at_ms=9000).note


@pytest.mark.parametrize("more", range(190, 198))
async def test_where_reading_begins_in_the_middle_of_a_note_that_is_none(tmp_path: Path, more: int) -> None:
    path = tmp_path / "notes"
    path.write_text("".join(f"{outgoing(each).note}\n" for each in range(1, more + 1)))
    assert path.stat().st_size > 64 * 1024  # and so much is read
    assert await FileWitness(path).newest(1000 * more) is None
    assert await FileWitness(path).newest(1000 * more - 1) == outgoing(more).note


async def test_a_file_of_something_else_is_shown_and_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("something else\n" * 10_000)
    assert "something else" in (await FileWitness(path).newest(10**12) or "")  # not believed by whoever asks
    with pytest.raises(OSError, match="no checkpoint"):
        await FileWitness(path).add(outgoing(1))
    assert path.read_text() == "something else\n" * 10_000


@pytest.mark.parametrize("content", ["something else\n", "— something else\n", "no line", "a\n\n— b\n\n"[:-1]])
async def test_a_small_file_of_something_else_is_not_emptied(tmp_path: Path, content: str) -> None:
    path = tmp_path / "notes"
    path.write_text(content)
    with pytest.raises(OSError, match="no checkpoint"):
        await FileWitness(path).add(outgoing(1))
    assert path.read_text() == content


@pytest.mark.parametrize("keep", [1, 20, 100, -1, -2, -30, -95])
@pytest.mark.parametrize("filled", [b"", bytes(4096)], ids=["", "with-nuls"])
async def test_what_a_crash_left_of_the_first_is_written_again(tmp_path: Path, keep: int, filled: bytes) -> None:
    path, whole = tmp_path / "notes", f"{outgoing(1).note}\n".encode()
    path.write_bytes(whole[:keep] + filled)
    await FileWitness(path).add(outgoing(5))
    assert path.read_bytes() == f"{outgoing(5).note}\n".encode()


async def test_more_may_come_again_than_is_read_of_a_files_end(tmp_path: Path) -> None:
    path, again = tmp_path / "notes", 40
    many = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in range(MOST_SIGNATURES)]
    path.write_text("".join(f"{outgoing(each, keys=many).note}\n" for each in range(1, again + 2)))
    size = path.stat().st_size
    for each in range(1, again + 1):
        await FileWitness(path).add(outgoing(each, keys=many))
    assert path.stat().st_size - size > 64 * 1024  # and so much is read
    assert await FileWitness(path).newest(1000 * again) == outgoing(again + 1, keys=many).note


async def test_a_file_can_be_read_by_anybody_with_a_pager(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    for count in (1, 5):
        await FileWitness(path).add(outgoing(count))
    assert path.read_text() == f"{outgoing(1).note}\n{outgoing(5).note}\n"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("keep", [1, 20, 100, -1, -2, -30, -95])
async def test_what_a_crash_cut_short_is_written_again(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "notes"
    await FileWitness(path).add(outgoing(1))
    first = path.read_bytes()
    last = f"{outgoing(5).note}\n".encode()
    path.write_bytes(first + last[:keep])
    await FileWitness(path).add(outgoing(5))
    assert path.read_bytes() == first + last


async def test_a_full_disk_is_told_and_nothing_is_lost() -> None:
    with pytest.raises(OSError, match="No space left"):
        await FileWitness(Path("/dev/full")).add(outgoing(1))


async def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "notes").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        await FileWitness(tmp_path / "notes").add(outgoing(1))
    with pytest.raises(OSError, match="symbolic"):
        await FileWitness(tmp_path / "notes").newest(-1)


# ------------------------------------------------------------------ S3


async def test_an_object_is_locked_and_never_written_twice(moto: str) -> None:
    client = bucket(moto, "locked")
    witness = Bucket(s3_settings(moto, "locked", retention="400d", mode="COMPLIANCE"), resolve)
    await witness.add(outgoing(1))
    key = "audit/000000000001000.note"
    facts = client.head_object(Bucket="locked", Key=key)
    assert facts["ObjectLockMode"] == "COMPLIANCE"
    assert facts["ObjectLockRetainUntilDate"].timestamp() >= 400 * 86400
    client.put_object(Bucket="locked", Key="audit/000000000005000.note", Body=b"somebody else's")
    with pytest.raises(OSError, match="another object"):
        await witness.add(outgoing(5))
    assert client.get_object(Bucket="locked", Key="audit/000000000005000.note")["Body"].read() == b"somebody else's"


async def test_a_bucket_that_is_not_there_or_cannot_be_reached(moto: str) -> None:
    for settings in (s3_settings(moto, "nowhere"), s3_settings("http://127.0.0.1:9", "locked")):
        witness = Bucket(settings, resolve)
        for call in (witness.add(outgoing(1)), witness.newest(-1)):
            with pytest.raises(OSError, match=r"answered|failed"):
                await call


REDIRECT = b"HTTP/1.1 302 Found\r\nlocation: /login\r\ncontent-length: 0\r\n"
PAGE = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(REDIRECT + b"connection: close\r\n\r\n", id="redirect"),
        pytest.param(PAGE + b"connection: close\r\n\r\n<html><p>We move</p></html>", id="page"),
        pytest.param(PAGE + b"connection: close\r\n\r\n<p>We <b>move</p>", id="page-that-is-no-xml"),
        pytest.param(PAGE + b"connection: close\r\n\r\n<html><Contents/><Name>b</Name></html>", id="no-key"),
        pytest.param(PAGE + b"connection: close\r\n\r\n", id="nothing"),
    ],
)
async def test_what_is_no_answer_of_s3_has_neither_taken_nor_seen_anything(answer: bytes) -> None:
    """Taken for an empty bucket it would hide that the ledger is behind; any other error would end the pumps."""
    async with answering(answer) as address:
        witness = Bucket(s3_settings(address, "elsewhere"), resolve)
        for call in (witness.add(outgoing(1)), witness.newest(-1)):
            with pytest.raises(OSError, match=r"answered|failed"):
                await call


# ------------------------------------------------------------------ HTTP


async def test_what_says_no_time_is_not_sent_again() -> None:
    """It is not believed at the next start; nothing of it becomes ours."""
    async with keeping() as (kept, settings):
        witness = Http(settings, resolve)
        kept.notes = ["<html>no note</html>"]
        await witness.add(outgoing(1))
        assert kept.notes == ["<html>no note</html>", outgoing(1).note]
        await witness.close()


async def test_nothing_is_sent_again_while_what_is_sent_is_the_latest() -> None:
    async with keeping() as (kept, settings):
        witness = Http(settings, resolve)
        for count in (1, 5, 5):
            await witness.add(outgoing(count))
        assert kept.notes == [outgoing(each).note for each in (1, 5, 5)]
        await witness.close()


@pytest.mark.parametrize("status", [302, 400, 409, 500])
async def test_only_2xx_is_kept(status: int) -> None:
    async with keeping() as (kept, settings):
        witness = Http(settings, resolve)
        kept.fail = status
        with pytest.raises(OSError, match=str(status)):
            await witness.add(outgoing(1))
        with pytest.raises(OSError, match=str(status)):
            await witness.newest(-1)
        assert (kept.notes, kept.tokens) == ([], {"Bearer TOKEN"})
        await witness.close()


async def test_a_service_that_is_down_and_one_that_says_something_else() -> None:
    async with keeping() as (kept, settings):
        witness = Http(settings, resolve)
        kept.notes = ["<html>no note</html>" * 10_000]
        assert (await witness.newest(10**12) or "").startswith("<html>")  # not believed by whoever asks
        await witness.close()
    down = Http(settings, resolve)
    with pytest.raises(OSError, match="failed") as caught:
        await down.add(outgoing(1))
    assert "notes" not in str(caught.value)
    await down.close()


# ------------------------------------------------------------------ syslog


@asynccontextmanager
async def collector(tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[list[bytes], int]]:
    made = Collector()
    async with collecting(made, tls) as port:
        yield made.taken, port


def syslog(port: int, **changes: Any) -> Any:
    return settings_of(SyslogWitness, address=f"localhost:{port}", **changes)


async def test_a_syslog_message_is_one_line_of_rfc_5424() -> None:
    async with collector() as (taken, port):
        await Syslog(syslog(port, tls=False), "host-1").add(outgoing(1))
    (line,) = taken
    head, _, body = line.decode().partition("{")
    assert head == "<109>1 1970-01-01T00:00:01.000Z host-1 brokerd - audit.checkpoint - "
    assert json.loads("{" + body) == {"checkpoint": outgoing(1).note}
    assert b"\n" not in line
    assert await Syslog(syslog(port, tls=False), "host-1").newest(-1) is None


async def test_syslog_over_tls_believes_its_ca_alone(tmp_path: Path) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    ca, other = authority("collector.test", at=now), authority("other.test", at=now)
    server = ca.svid("spiffe://collector.test/c", dns=["localhost"])
    (tmp_path / "chain.pem").write_bytes(server.pem + server.chain_pem)
    (tmp_path / "key.pem").write_bytes(server.key_pem)
    (tmp_path / "ca.pem").write_bytes(ca.pem)
    (tmp_path / "other.pem").write_bytes(other.pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "chain.pem", tmp_path / "key.pem")
    async with collector(context) as (taken, port):
        with pytest.raises(OSError, match="CERTIFICATE"):
            await Syslog(syslog(port, ca_file=str(tmp_path / "other.pem")), "h").add(outgoing(1))
        assert taken == []
        await Syslog(syslog(port, ca_file=str(tmp_path / "ca.pem")), "h").add(outgoing(1))
    assert taken == [message(outgoing(1), "h")]


async def test_a_collector_that_is_down_is_an_error() -> None:
    async with collector() as (_, port):
        pass
    with pytest.raises(OSError, match=r"Connect|refused|failed"):
        await Syslog(syslog(port, tls=False), "h").add(outgoing(1))


@pytest.mark.parametrize("name", ["logs..example.org", ".example.org", f"{'a' * 64}.example.org"])
async def test_a_collector_whose_name_dns_cannot_have_is_an_error(name: str) -> None:
    settings = settings_of(SyslogWitness, address=f"{name}:6514")
    with pytest.raises(OSError, match="no name that DNS can have"):
        await Syslog(settings, "h").add(outgoing(1))
