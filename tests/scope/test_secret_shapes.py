"""What has the shape of a credential, and what only looks a little like one."""

from __future__ import annotations

import pytest

from broker.scope.secret_shapes import secret_in

B64 = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-_"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("an AWS access key id", "AKIA" + "QWERTYUIOPASDF23"),
        ("an AWS access key id", "ASIA" + "QWERTYUIOPASDF23"),
        ("a JSON Web Token", f"eyJ{B64[:20]}.eyJ{B64[:30]}.{B64[:43]}"),
        ("a private key", "-----BEGIN PRIVATE KEY-----"),
        ("a private key", "-----BEGIN OPENSSH PRIVATE KEY-----"),
        ("a private key", "-----BEGIN RSA PRIVATE KEY-----"),
        ("a Vault or OpenBao token", "hvs." + B64[:26]),
        ("a Vault or OpenBao token", "hvb." + B64 + B64),
        ("a Vault or OpenBao token", "s." + B64[:24]),
        ("a GitHub token", "ghp_" + B64[:36]),
        ("a GitHub token", "github_pat_" + B64[:62] * 2),
        ("a GitLab token", "glpat-" + B64[:20]),
        ("a Slack token", "xoxb-" + "123456789012-abcdef"),
        ("a Google API key", "AIza" + B64[:35]),
        ("a Google access token", "ya29." + B64[:30]),
        ("a Stripe key", "sk_live_" + B64[:24]),
        ("an OpenAI or Anthropic key", "sk-ant-" + B64[:40]),
        ("a URL with a password", "postgresql://admin:hunter2@db.example.org/orders"),
    ],
)
@pytest.mark.parametrize("around", ["{}", "use {} for it", "key={}\n", "({})"])
def test_credentials(kind: str, text: str, around: str) -> None:
    if text.startswith("github_pat_"):
        text = text.replace("-", "x")
    assert secret_in(around.format(text)) == kind


@pytest.mark.parametrize(
    "text",
    [
        "",
        "count the open orders of yesterday",
        "spiffe://example.org/agent/analyst",
        "https://id.example.org#dana",
        "https://example.org:8443/path?x=1@2",
        "s3://bucket/key",
        "arn:aws:iam::123456789012:role/reader",
        "task-1o4n9j3ncructugr6el06hc7942oct9544",
        "jb-1o4n9j53aj2impsjnsq2heltkqmgd54b2k",
        "AKIA and ASIA are prefixes",
        "orders.a-very-long-table-name-that-goes-on-and-on.more",
        "sk-learn",
        "eyJust a text. eyJ",
        "1028ebd7660ba71b687b77ba4b450b48ccf067e4f089ff21a5087e8c2110f2ef",
        "a BEGIN PUBLIC KEY and no PRIVATE KEY",
    ],
)
def test_other_texts(text: str) -> None:
    assert secret_in(text) is None
