"""Credentials without a secret, and the one that only rotation ends: over the wire, and as tools read them."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest

from broker.api import convert
from broker.api.redaction import MASK, redacted
from broker.cli.delivery import written
from broker.client import read
from broker.client.delivery import environment, inherited
from broker.client.forms import kubeconfig
from broker.client.model import Grant
from broker.lease.credential import (
    AwsAccessKey,
    Credential,
    KubernetesToken,
    SshCertificate,
    StaticSecret,
    WrappedSecret,
    X509Certificate,
)
from broker.secret import Secret

X509 = X509Certificate("-----BEGIN CERTIFICATE-----\nA\n", "-----BEGIN CERTIFICATE-----\nB\n", "0a:0b")
SSH = SshCertificate("ssh-ed25519-cert-v01@openssh.com AAAA", "0a0b", ("deploy", "reports"))
STATIC = StaticSecret("shop/mailer", 3, {"api-key": Secret("k1"), "user": Secret("mailer")})
WRAPPED = WrappedSecret(
    Secret("s.once"), "acc", datetime(2031, 5, 1, tzinfo=UTC), "https://bao.test:8200", "teams/shop", "database_login"
)
KUBERNETES = KubernetesToken(
    Secret("e.y.J"), datetime(2031, 5, 1, tzinfo=UTC), "token-a", "shop", "https://k8s.test:6443", "-----BEGIN\n"
)
ACCESS_KEY = AwsAccessKey("AKIAEXAMPLE", Secret("sk"), "eu-central-1")
ALL: list[Credential] = [X509, SSH, STATIC, WRAPPED, KUBERNETES, ACCESS_KEY]


@pytest.mark.parametrize("credential", ALL)
def test_each_comes_over_the_wire_as_it_was(credential: Credential) -> None:
    message = convert.credential(credential)
    assert read.credential(type(message).FromString(message.SerializeToString())) == credential


def test_only_values_are_secret_and_none_is_shown() -> None:
    shown = redacted(convert.credential(STATIC))["static_secret"]
    assert shown == {"path": "shop/mailer", "version": 3, "values": MASK}
    assert "k1" not in repr(STATIC)
    told = redacted(convert.credential(WRAPPED))["wrapped_secret"]
    assert told["wrapping_token"] == MASK
    assert told["wrapping_accessor"] == "acc"
    key = redacted(convert.credential(ACCESS_KEY))["aws_access_key"]
    assert (key["access_key_id"], key["secret_access_key"]) == ("AKIAEXAMPLE", MASK)
    assert redacted(convert.credential(X509))["x509_certificate"]["certificate"] == X509.certificate
    assert redacted(convert.credential(SSH))["ssh_certificate"]["principals"] == ["deploy", "reports"]


def test_the_environment_of_each() -> None:
    assert environment(X509) == {"BROKER_CERTIFICATE": X509.certificate, "BROKER_CA_CHAIN": X509.ca_chain}
    assert environment(ACCESS_KEY) == {
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "sk",
        "AWS_REGION": "eu-central-1",
        "AWS_DEFAULT_REGION": "eu-central-1",
    }
    assert environment(SSH) == {"BROKER_SSH_CERTIFICATE": SSH.certificate}
    assert environment(STATIC) == {"BROKER_SECRET_API_KEY": "k1", "BROKER_SECRET_USER": "mailer"}
    assert environment(KUBERNETES) == {
        "BROKER_KUBERNETES_TOKEN": "e.y.J",
        "BROKER_KUBERNETES_SERVER": "https://k8s.test:6443",
        "BROKER_KUBERNETES_NAMESPACE": "shop",
        "BROKER_KUBERNETES_CA": "-----BEGIN\n",
    }
    place = {"ADDR": "https://bao.test:8200", "NAMESPACE": "teams/shop"}
    assert environment(WRAPPED) == {
        "BROKER_WRAPPING_TOKEN": "s.once",
        **{f"{server}_{name}": value for server in ("VAULT", "BAO") for name, value in place.items()},
    }
    twice = StaticSecret("p", 1, {"api-key": Secret("a"), "api_key": Secret("b")})
    with pytest.raises(ValueError, match="read it as JSON"):
        environment(twice)


@pytest.mark.parametrize("credential", [X509, SSH])
def test_files_of_another_key_are_not_inherited(credential: Credential) -> None:
    made = inherited({"PATH": "/bin", "BROKER_KEY_FILE": "/other", "BROKER_CERTIFICATE_FILE": "/other"}, credential)
    assert made == {"PATH": "/bin", **environment(credential)}


def granted(credential: Credential) -> Grant:
    message = convert.credential(credential)
    response = read.RequestCredentialResponse(credential=message)
    response.lease.expire_time.FromDatetime(datetime(2031, 5, 1, tzinfo=UTC))
    return read.grant(response)


def test_the_forms_of_each() -> None:
    assert written(granted(X509), "text") == X509.certificate + X509.ca_chain
    assert written(granted(SSH), "text") == SSH.certificate + "\n"
    assert written(granted(STATIC), "text") == written(granted(STATIC), "env")
    told = json.loads(written(granted(STATIC), "json"))
    assert (told["kind"], told["values"]) == ("staticSecret", {"api-key": "k1", "user": "mailer"})
    assert json.loads(written(granted(X509), "json"))["serialNumber"] == "0a:0b"
    assert granted(X509).x509 == X509
    assert granted(SSH).ssh == SSH
    assert granted(STATIC).static == STATIC
    with pytest.raises(TypeError):
        granted(STATIC).ssh  # noqa: B018 - asking is what raises


def test_a_token_of_kubernetes_as_kubectl_reads_it() -> None:
    told = json.loads(kubeconfig(KUBERNETES))
    (cluster,), (user,), (context,) = told["clusters"], told["users"], told["contexts"]
    assert cluster["cluster"]["server"] == "https://k8s.test:6443"
    assert base64.b64decode(cluster["cluster"]["certificate-authority-data"]) == b"-----BEGIN\n"
    assert user["user"] == {"token": "e.y.J"}
    assert context["context"] == {"cluster": cluster["name"], "user": user["name"], "namespace": "shop"}
    assert told["current-context"] == context["name"]
    assert "e.y.J" not in str(redacted(convert.credential(KUBERNETES)))
