import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import ValidationError

from broker.config import HostPort, load_config
from broker.deployfiles.schemas import published
from broker.files import Problems

MINIMAL = """\
tenant: default
trust_domain: example.org
listen:
  agents: 0.0.0.0:8443
  operations: 127.0.0.1:9090
identity:
  certificate: svid.pem
  private_key: /run/broker/svid.key
  bundles:
    example.org: bundle.pem
deploy:
  directory: ../deploy
state:
  directory: /var/lib/broker
keys:
  ledger:
    - file:ledger.key
    - env:OLD_LEDGER_KEY
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "brokerd.yaml"
    path.write_text(text)
    path.chmod(0o600)
    return path


def problems(tmp_path: Path, text: str) -> list[tuple[int, str, str]]:
    path = write(tmp_path, text)
    with pytest.raises(Problems) as caught:
        load_config(path)
    assert {problem.file for problem in caught.value.problems} == {str(path)}
    return [(problem.line, problem.field, problem.message) for problem in caught.value.problems]


def test_the_minimal_file_and_its_defaults(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, MINIMAL))
    assert (config.tenant, config.trust_domain) == ("default", "example.org")
    assert config.listen.agents == HostPort("0.0.0.0", 8443)
    assert not config.listen.agents.loopback
    assert config.listen.operations.loopback
    assert config.limits.confirm_within == timedelta(seconds=30)
    assert config.revocation.tick == timedelta(milliseconds=500)
    assert (config.log.level, config.log.format) == ("info", "json")
    assert config.audit.export_file is None


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, MINIMAL))
    assert config.identity.certificate == tmp_path / "svid.pem"
    assert config.identity.private_key == Path("/run/broker/svid.key")
    assert config.identity.bundles == {"example.org": tmp_path / "bundle.pem"}
    assert config.deploy.directory.resolve() == tmp_path.parent / "deploy"
    assert config.keys.ledger == (f"file:{tmp_path}/ledger.key", "env:OLD_LEDGER_KEY")


def test_a_relative_config_path_gives_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, MINIMAL)
    monkeypatch.chdir(tmp_path)
    assert load_config(Path("brokerd.yaml")).identity.certificate == tmp_path / "svid.pem"


def test_a_config_does_not_change(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, MINIMAL))
    with pytest.raises(ValidationError):
        config.limits.confirm_within = timedelta(1)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "told"),
    [
        ("tenant: default", "tenat: default", 1, "tenat", "not a known key"),
        ("tenant: default", "tenant: Default", 1, "tenant", "must match"),
        ("tenant: default", "tenant:", 1, "tenant", "is empty"),
        ("trust_domain: example.org", "trust_domain: spiffe://example.org", 2, "trust_domain", "without spiffe://"),
        ("127.0.0.1:9090", "0.0.0.0:9090", 5, "listen.operations", "0.0.0.0:9090 is not loopback"),
        ("127.0.0.1:9090", "example.org:9090", 5, "listen.operations", "is not loopback"),
        ("0.0.0.0:8443", "0.0.0.0", 4, "listen.agents", "must be host:port"),
        ("0.0.0.0:8443", "0.0.0.0:0", 4, "listen.agents", "must be host:port"),
        ("0.0.0.0:8443", "0.0.0.0:65536", 4, "listen.agents", "must be host:port"),
        ("0.0.0.0:8443", ":8443", 4, "listen.agents", "must be host:port"),
        ("0.0.0.0:8443", "'::1:8443'", 4, "listen.agents", "must be host:port"),
        ("0.0.0.0:8443", "'[1.2.3.4]:8443'", 4, "listen.agents", "must be host:port"),
        ("0.0.0.0:8443", "127.0.0.1:9090", 5, "listen.operations", "the agents' address too"),
        (
            "    example.org: bundle.pem",
            "    other.org: bundle.pem",
            9,
            "identity.bundles",
            "no bundle for example.org",
        ),
        ("    example.org: bundle.pem", "    Other.org: bundle.pem", 10, "identity.bundles.Other.org", "trust domain"),
        ("127.0.0.1:9090", "127.0.0.1:9090\n  admin: 127.0.0.1:9443", 6, "listen.admin", "needs the section people"),
        ("tenant: default", "tenant: default\noperators: {dana: file:d}", 2, "operators", "not a known key"),
        ("tenant: default", "tenant: default\nroles: {king: [ops]}", 2, "roles.king", "must be 'viewer'"),
        ("tenant: default", "tenant: default\nroles: {operator: [ops, ops]}", 2, "roles.operator.1", "listed twice"),
        ("certificate: svid.pem", "certificate: ''", 7, "identity.certificate", "must be a path"),
        ("/run/broker/svid.key", "/var/lib/broker/svid.key", 8, "identity.private_key", "in the state directory"),
        ("file:ledger.key", "file:/var/lib/broker/keys/x", 17, "keys.ledger.0", "in the state directory"),
        ("file:ledger.key", "file:/var/lib/../lib/broker/x", 17, "keys.ledger.0", "in the state directory"),
        ("file:ledger.key", "env:OLD_LEDGER_KEY", 18, "keys.ledger.1", "listed twice"),
        ("file:ledger.key", "0123456789abcdef", 17, "keys.ledger.0", "must be a reference"),
        ("    - file:ledger.key\n    - env:OLD_LEDGER_KEY\n", "    []\n", 16, "keys.ledger", "at least 1"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, field: str, told: str
) -> None:
    assert old in MINIMAL
    found = problems(tmp_path, MINIMAL.replace(old, new, 1))
    assert any((at, where) == (line, field) and told in message for at, where, message in found), found


FILES = """\
  certificate: svid.pem
  private_key: /run/broker/svid.key
  bundles:
    example.org: bundle.pem
"""
SOCKET = "  workload_api: unix:///run/spire/agent.sock\n"


def test_the_workload_api_instead_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", "unix:///somewhere/else")
    text = MINIMAL.replace(
        FILES, SOCKET + "  spiffe_id: spiffe://example.org/broker\n  federates_with: [partner.org]\n"
    )
    identity = load_config(write(tmp_path, text)).identity
    assert identity.workload_api == "unix:///run/spire/agent.sock"
    assert (identity.files, identity.bundles, identity.federates_with) == (None, {}, ("partner.org",))
    assert identity.spiffe_id == "spiffe://example.org/broker"


def test_an_environment_alone_is_no_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", "unix:///run/spire/agent.sock")
    found = problems(tmp_path, MINIMAL.replace("identity:\n" + FILES, "identity: {}\n"))
    assert [(line, field) for line, field, _ in found] == [
        (6, "identity.bundles"),
        (6, "identity.certificate"),
        (6, "identity.private_key"),
    ]


def test_a_bundle_file_beside_the_workload_api(tmp_path: Path) -> None:
    text = MINIMAL.replace(FILES, SOCKET + "  federates_with: [partner.org]\n  bundles: {partner.org: partner.pem}\n")
    assert load_config(write(tmp_path, text)).identity.bundles == {"partner.org": tmp_path / "partner.pem"}


@pytest.mark.parametrize(
    ("identity", "line", "field", "told"),
    [
        (SOCKET + FILES, 8, "certificate", "a second identity beside workload_api"),
        (SOCKET + "  private_key: x\n", 8, "private_key", "a second identity beside workload_api"),
        (FILES.replace("  certificate: svid.pem\n", ""), 6, "certificate", "is missing"),
        (FILES.replace("  private_key: /run/broker/svid.key\n", ""), 6, "private_key", "is missing"),
        (FILES + "    partner.org: p.pem\n", 11, "bundles.partner.org", "is a trust domain that is not accepted"),
        (FILES + "  federates_with: [partner.org]\n", 9, "bundles", "has no bundle for partner.org"),
        (FILES + "  federates_with: [example.org]\n", 11, "federates_with.0", "is the broker's own trust domain"),
        (SOCKET + "  federates_with: [a.org, a.org]\n", 8, "federates_with.1", "is listed twice"),
        (SOCKET + "  federates_with: [Partner.org]\n", 8, "federates_with.0", "must be a trust domain"),
        (SOCKET + "  federates_with: partner.org\n", 8, "federates_with", "must be a list"),
        (FILES + "  spiffe_id: spiffe://example.org/b\n", 11, "spiffe_id", "workload_api, which is not set"),
        (SOCKET + "  spiffe_id: spiffe://partner.org/b\n", 8, "spiffe_id", "not of the broker's own trust domain"),
        (SOCKET + "  spiffe_id: spiffe://example.org/\n", 8, "spiffe_id", "is not a SPIFFE ID"),
        *(
            (f"  workload_api: '{endpoint}'\n", 7, "workload_api", "must be the path of a socket")
            for endpoint in ("", "/run/agent.sock", "unix:agent.sock", "unix:///", "unix:///a?b", "tcp://127.0.0.1:1")
        ),
    ],
)
def test_an_identity_that_is_none_or_two(tmp_path: Path, identity: str, line: int, field: str, told: str) -> None:
    found = problems(tmp_path, MINIMAL.replace(FILES, identity))
    assert any((at, where) == (line, f"identity.{field}") and told in message for at, where, message in found), found


@pytest.mark.parametrize(
    ("limits", "line", "inequality"),
    [
        ("{default_task_duration: 9h}", 19, "default_task_duration <= max_task_duration must hold: 32400s > 28800s"),
        ("\n  max_task_duration: 30m", 20, "default_task_duration <= max_task_duration must hold: 3600s > 1800s"),
        ("{issue_timeout: 31s}", 19, "issue_timeout <= drain_timeout must hold: 31s > 30s"),
        ("{drain_timeout: 19s}", 19, "issue_timeout <= drain_timeout must hold: 20s > 19s"),
        (
            "{confirm_within: 1m, max_task_duration: 59s, default_task_duration: 1s}",
            19,
            "confirm_within <= max_task_duration must hold: 60s > 59s",
        ),
    ],
)
def test_an_impossible_pair_is_refused_with_the_inequality(
    tmp_path: Path, limits: str, line: int, inequality: str
) -> None:
    ((at, _, message),) = problems(tmp_path, f"{MINIMAL}limits: {limits}\n")
    assert (at, message) == (line, inequality)


@pytest.mark.parametrize(
    "section",
    [
        "limits: {max_concurrent_rpcs: 0}",
        "limits: {workers_per_connector: 257}",
        "limits: {confirm_within: 0s}",
        "limits: {confirm_within: 30}",
        "audit: {max_backlog_records: -1}",
        "revocation: {tick: .inf}",
        "log: {level: loud}",
        "log: {format: xml}",
        "limits: 5",
    ],
)
def test_zero_negative_and_foreign_values_are_refused(tmp_path: Path, section: str) -> None:
    found = problems(tmp_path, MINIMAL + section + "\n")
    assert found
    assert all(line == 19 for line, _, _ in found)


def test_operations_listen_remotely_only_if_that_is_said(tmp_path: Path) -> None:
    text = MINIMAL.replace("127.0.0.1:9090", "0.0.0.0:9090\n  allow_remote_operations: true")
    assert not load_config(write(tmp_path, text)).listen.operations.loopback


def test_a_link_into_the_state_directory_is_seen_through(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (tmp_path / "innocent").symlink_to(state)
    text = MINIMAL.replace("/var/lib/broker", "state").replace("file:ledger.key", "file:innocent/ledger.key")
    ((line, field, _),) = problems(tmp_path, text)
    assert (line, field) == (17, "keys.ledger.0")


def test_everything_is_told_at_once(tmp_path: Path) -> None:
    text = MINIMAL.replace("tenant: default\n", "").replace("8443", "x").replace("svid.pem", "''") + "extra: 1\n"
    assert [(line, field) for line, field, _ in problems(tmp_path, text)] == [
        (1, "tenant"),
        (3, "listen.agents"),
        (6, "identity.certificate"),
        (18, "extra"),
    ]


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL)
    path.chmod(0o660)
    with pytest.raises(Problems, match="chmod go-w"):
        load_config(path)


@pytest.mark.parametrize("text", ["[::1]:8443", "[fe80::1]:1", "localhost:65535", "broker.example.org:443"])
def test_addresses_come_back_as_written(tmp_path: Path, text: str) -> None:
    config = load_config(write(tmp_path, MINIMAL.replace("0.0.0.0:8443", f"'{text}'")))
    assert str(config.listen.agents) == text


def test_the_published_schema_takes_it_too() -> None:
    schema: Any = json.loads(published()["brokerd.schema.json"])
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(MINIMAL), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(MINIMAL + "extra: 1\n"), schema)


IDP = "https://idp.example.org"
ADMIN = (
    MINIMAL.replace("  operations:", "  admin: 0.0.0.0:9443\n  operations:")
    + f"""people:
  issuers:
    {IDP}:
      audience: jit-broker
      on_behalf_of_audience: jit-broker-agents
      groups_claim: groups
      acr: [phr]
      amr: [mfa]
"""
)


def test_the_peoples_door(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, ADMIN + "roles:\n  operator: [ops, night-shift]\n"))
    assert config.listen.admin == HostPort("0.0.0.0", 9443)
    assert config.people is not None
    issuer = config.people.issuers[IDP]
    assert (issuer.audience, issuer.on_behalf_of_audience) == ("jit-broker", "jit-broker-agents")
    assert (issuer.groups_claim, issuer.acr, issuer.amr) == ("groups", ("phr",), ("mfa",))
    assert {role.value: groups for role, groups in config.roles.items()} == {"operator": ("ops", "night-shift")}


SECOND = """    https://idp2.example.org:
      audience: x
      known_as: https://idp.example.org
"""
LOOPBACK = """    http://127.0.0.1:9999:
      audience: x
      ca_file: ca.pem
"""


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "told"),
    [
        ("0.0.0.0:9443", "127.0.0.1:9090", 5, "listen.admin", "listened on for something else"),
        ("https://idp", "http://idp", 22, "people.issuers", "must be https"),
        ("https://idp", "https://me:secret@idp", 22, "people.issuers", "has a user"),
        ("https://idp.example.org:", "idp.example.org:", 22, "people.issuers", "must be a URL"),
        ("      audience: jit-broker\n", "", 22, "people.issuers", "is missing"),
        ("audience: jit-broker\n", "audience: ''\n", 23, "people.issuers", "must match"),
        ("jit-broker-agents", "jit-broker", 24, "people.issuers", "is the audience too"),
        ("groups_claim: groups", "groups_claims: groups", 25, "people.issuers", "not a known key"),
        ("      amr: [mfa]\n", "      amr: [mfa]\n" + SECOND, 28, "people.issuers", "the same name"),
        ("      amr: [mfa]\n", "      amr: [mfa]\n" + LOOPBACK, 30, "people.issuers", "is for https"),
        ("      amr: [mfa]\n", "      jwks_uri: http://idp/keys\n", 27, "people.issuers", "must be https"),
    ],
)
def test_what_is_wrong_with_the_peoples_door(
    tmp_path: Path, old: str, new: str, line: int, field: str, told: str
) -> None:
    ((found_line, found_field, message),) = problems(tmp_path, ADMIN.replace(old, new, 1))
    assert found_line == line and found_field.startswith(field)
    assert told in message
    assert "secret" not in message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("retention: {leases: 23h}", "retention.leases"),
        ("retention: {}", "retention.leases"),
        ("retention: {leases: 29d}", "audit.keep_texts_for <= retention.leases must hold: 2.592e+06s > 2.5056e+06s"),
        ("access_reviews: {}", "access_reviews.every"),
        ("access_reviews: {every: 0d}", "access_reviews.every"),
    ],
)
def test_a_retention_or_schedule_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, told: str) -> None:
    ((line, field, message),) = problems(tmp_path, f"{MINIMAL}{text}\n")
    assert line == 19
    assert told in (field, message)


def test_retention_and_reviews_are_off_until_they_are_asked_for(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, MINIMAL))
    assert (config.retention, config.access_reviews) == (None, None)
    config = load_config(write(tmp_path, f"{MINIMAL}retention: {{leases: 90d}}\naccess_reviews: {{every: 90d}}\n"))
    assert config.retention is not None and config.retention.leases.days == 90


@pytest.mark.parametrize(
    ("text", "size"), [("64KiB", 65_536), ("1MiB", 1_048_576), ("2GiB", 2_147_483_648), ("none", None)]
)
def test_the_ballasts_size(tmp_path: Path, text: str, size: int | None) -> None:
    said = MINIMAL.replace("directory: /var/lib/broker", f"directory: /var/lib/broker\n  ballast: {text}")
    assert load_config(write(tmp_path, said)).state.ballast == size
    assert load_config(write(tmp_path, MINIMAL)).state.ballast == 64 * 1024 * 1024


@pytest.mark.parametrize("text", ["0", "0MiB", "64", "64MB", "-1MiB", "''", "64 MiB", "null"])
def test_no_ballast_is_said_in_so_many_words(tmp_path: Path, text: str) -> None:
    """F36: nothing that might be a slip of the pen switches it off."""
    said = MINIMAL.replace("directory: /var/lib/broker", f"directory: /var/lib/broker\n  ballast: {text}")
    ((_, field, message),) = problems(tmp_path, said)
    assert field == "state.ballast"
    assert "must be a size like 64MiB (KiB, MiB, GiB), and more than zero; or none" in message
