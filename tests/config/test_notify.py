"""``notify``: where webhooks go, signed with what, about what."""

from datetime import timedelta
from pathlib import Path

import pytest

from broker.config import load_config
from tests.config.test_config import MINIMAL, problems, write

HOOK = """\
notify:
  soc:
    url: {url}
    secrets: [{secret}]
    events: [{events}]
"""


def hook(url: str = "https://hooks.example.org/x?y=z", secret: str = "file:hook.key", events: str = "'lease.*'") -> str:
    return MINIMAL + HOOK.format(url=url, secret=secret, events=events)


def test_a_destination_and_its_defaults(tmp_path: Path) -> None:
    (soc,) = load_config(write(tmp_path, hook())).notify.values()
    assert (soc.url, soc.events) == ("https://hooks.example.org/x?y=z", ("lease.*",))
    assert soc.secrets == (f"file:{tmp_path}/hook.key",)
    assert (soc.timeout, soc.ca_file) == (timedelta(seconds=10), None)


def test_there_is_none_by_default(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, MINIMAL)).notify == {}


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080/x", "http://localhost/x", "'http://[::1]:1/x'", "https://x:8443/"]
)
def test_where_it_may_go(url: str, tmp_path: Path) -> None:
    assert load_config(write(tmp_path, hook(url))).notify["soc"].url == url.strip("'")


@pytest.mark.parametrize(
    ("changes", "field", "told"),
    [
        ({"url": "http://hooks.example.org/x"}, "url", "must be https; http only to loopback"),
        ({"url": "http://127.0.0.1.example.org/x"}, "url", "must be https"),
        ({"url": "http://10.0.0.1/x"}, "url", "must be https"),
        ({"url": "ftp://example.org/x"}, "url", "must be a URL"),
        ({"url": "file:///etc/passwd"}, "url", "must be a URL"),
        ({"url": "https://"}, "url", "must be a URL"),
        ({"url": "https:///x"}, "url", "must be a URL"),
        ({"url": "'https://a b/'"}, "url", "must be a URL"),
        ({"url": "https://x:0/"}, "url", "must be a URL"),
        ({"url": "https://x:99999/"}, "url", "ort"),
        ({"url": "https://user:pw@example.org/"}, "url", "has a user, a password"),
        ({"url": "'https://example.org/#x'"}, "url", "has a user, a password or a fragment"),
        ({"secret": "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ="}, "secrets.0", "must be a reference"),
        ({"secret": ""}, "secrets", "at least 1 item"),
        ({"events": ""}, "events", "at least 1 item"),
        ({"events": "nothing.*"}, "events.0", "means no audit event"),
        ({"events": "lease.isued"}, "events.0", "means no audit event"),
        ({"events": "'*.issued'"}, "events.0", "means no audit event"),
    ],
)
def test_what_is_wrong_is_told(changes: dict[str, str], field: str, told: str, tmp_path: Path) -> None:
    found = problems(tmp_path, hook(**changes))
    (message,) = [message for _, name, message in found if name == f"notify.soc.{field}"]
    assert told in message
    assert "whsec_c2V" not in str(found)
